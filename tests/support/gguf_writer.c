#include "tests/support/gguf_writer.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/gguf.h"

void put(struct file *f, const void *bytes, size_t n)
{
    assert_true(f->length + n <= sizeof f->bytes);
    memcpy(f->bytes + f->length, bytes, n);
    f->length += n;
}

void put_u32(struct file *f, uint32_t value)
{
    put(f, &value, sizeof value);
}

void put_u64(struct file *f, uint64_t value)
{
    put(f, &value, sizeof value);
}

void put_string(struct file *f, const char *text)
{
    put_u64(f, strlen(text));
    put(f, text, strlen(text));
}

void put_header(struct file *f, uint32_t version, uint64_t tensors, uint64_t keys)
{
    put(f, "GGUF", 4);
    put_u32(f, version);
    put_u64(f, tensors);
    put_u64(f, keys);
}

void put_key(struct file *f, const char *name, uint32_t type, const void *value, size_t bytes)
{
    put_string(f, name);
    put_u32(f, type);
    put(f, value, bytes);
}

void put_key_u32(struct file *f, const char *name, uint32_t value)
{
    put_key(f, name, GGUF_U32, &value, sizeof value);
}

void put_tensor(struct file *f, const char *name, uint64_t columns, uint64_t rows, uint32_t type, uint64_t offset)
{
    put_string(f, name);
    put_u32(f, 2);
    put_u64(f, columns);
    put_u64(f, rows);
    put_u32(f, type);
    put_u64(f, offset);
}

void pad(struct file *f, size_t alignment, size_t more)
{
    while (f->length % alignment)
        put(f, "", 1);
    for (size_t i = 0; i < more; i++)
        put(f, "x", 1);
}

struct file small_gguf(void)
{
    struct file f = {.length = 0};
    put_header(&f, 3, 2, 6);
    put_string(&f, "general.name");
    put_u32(&f, GGUF_STRING);
    put_string(&f, "tiny");
    put_key_u32(&f, "a.count", 7);
    put_key(&f, "a.flag", GGUF_BOOL, "\1", 1);
    put_key(&f, "a.rate", GGUF_F32, &(float){0.5f}, 4);
    put_string(&f, "a.words");
    put_u32(&f, GGUF_ARRAY);
    put_u32(&f, GGUF_STRING);
    put_u64(&f, 3);
    put_string(&f, "one");
    put_string(&f, "");
    put_string(&f, "three");
    put_string(&f, "a.numbers");
    put_u32(&f, GGUF_ARRAY);
    put_u32(&f, GGUF_I32);
    put_u64(&f, 2);
    put_u32(&f, 5);
    put_u32(&f, (uint32_t)-6);
    put_tensor(&f, "first", 4, 4, TENSOR_F32, 0);
    put_tensor(&f, "second", 32, 2, TENSOR_Q4_0, 64);
    pad(&f, 32, 64 + 36);
    return f;
}
