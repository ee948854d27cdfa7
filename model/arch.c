#include "model/arch.h"

#include <stdio.h>
#include <string.h>

static const struct architecture *const architectures[] = {
    &arch_llama,  &arch_qwen2,  &arch_qwen3,   &arch_phi3,     &arch_olmo2,   &arch_gpt2,
    &arch_gemma2, &arch_gemma3, &arch_mixtral, &arch_qwen3moe, &arch_mistral,
};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };

const struct architecture *arch_named(struct gguf_string name, bool mixture)
{
    for (uint32_t i = 0; i < ARCHITECTURES; i++) {
        const struct architecture *a = architectures[i];
        if (a->mixture == mixture && strlen(a->name) == name.length && memcmp(a->name, name.at, name.length) == 0)
            return a;
    }
    return NULL;
}

const struct architecture *arch_numbered(uint32_t id)
{
    for (uint32_t i = 0; i < ARCHITECTURES; i++)
        if (architectures[i]->id == id)
            return architectures[i];
    return NULL;
}

void arch_list(char *out, size_t size)
{
    size_t used = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < ARCHITECTURES && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s%s", i ? ", " : "", architectures[i]->name,
                                 architectures[i]->mixture ? " with experts" : "");
}
