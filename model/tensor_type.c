#include "model/tensor_type.h"

#include <stddef.h>

static const struct tensor_type_traits traits[] = {
#define X(name, number, elements, bytes) [number] = {#name, elements, bytes},
    TENSOR_TYPES(X)
#undef X
};

const struct tensor_type_traits *tensor_type_traits(uint32_t number)
{
    if (number >= sizeof traits / sizeof *traits || !traits[number].name)
        return NULL;
    return &traits[number];
}
