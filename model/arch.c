#include "model/arch.h"

#include <string.h>

static const struct architecture *const architectures[] = {&arch_llama};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };

const struct architecture *arch_named(struct gguf_string name)
{
    for (uint32_t i = 0; i < ARCHITECTURES; i++)
        if (strlen(architectures[i]->name) == name.length && memcmp(architectures[i]->name, name.at, name.length) == 0)
            return architectures[i];
    return NULL;
}

const struct architecture *arch_numbered(uint32_t id)
{
    for (uint32_t i = 0; i < ARCHITECTURES; i++)
        if (architectures[i]->id == id)
            return architectures[i];
    return NULL;
}
