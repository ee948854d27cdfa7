/* A safetensors file: whatever its header says, what is handed out lies inside it and every byte is handed out once. */
#include "base/must.h"
#include "model/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors *s;
    struct why why;
    if (safetensors_open_memory(&s, data, size, "fuzz", &why) != OK)
        return 0;
    uint64_t all = 0;
    volatile uint8_t sum = 0;
    for (uint32_t i = 0; i < safetensors_count(s); i++) {
        const struct safetensors_tensor *t = safetensors_at(s, i);
        must(safetensors_find(s, t->name) == t && t->dims <= SAFETENSORS_MAX_DIMS);
        must(t->data >= data && t->bytes <= size && t->data + t->bytes <= data + size);
        all += t->bytes;
        if (t->bytes)
            sum = (uint8_t)(sum + t->data[0] + t->data[t->bytes - 1]);
    }
    must(all <= size && safetensors_file_bytes(s) == size);
    safetensors_close(s);
    return 0;
}
