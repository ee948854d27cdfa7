/* gguf_writer: puts a GGUF file together byte by byte, right or wrong as the test wants it. */
#ifndef QUIRE_TESTS_GGUF_WRITER_H
#define QUIRE_TESTS_GGUF_WRITER_H

#include <stddef.h>
#include <stdint.h>

struct file {
    uint8_t bytes[32768];
    size_t length;
};

void put(struct file *f, const void *bytes, size_t n);
void put_u32(struct file *f, uint32_t value);
void put_u64(struct file *f, uint64_t value);
void put_string(struct file *f, const char *text);

/* The first 24 bytes; then come `keys` keys and `tensors` tensors, then pad() and the tensors' data. */
void put_header(struct file *f, uint32_t version, uint64_t tensors, uint64_t keys);
void put_key(struct file *f, const char *name, uint32_t type, const void *value, size_t bytes);
void put_key_u32(struct file *f, const char *name, uint32_t value);
void put_tensor(struct file *f, const char *name, uint64_t columns, uint64_t rows, uint32_t type, uint64_t offset);

/* Zeros up to a multiple of alignment, then `more` bytes 'x'. */
void pad(struct file *f, size_t alignment, size_t more);

/* Every kind of thing that a header can hold, small: two tensors of 64 and 36 bytes at offsets 0 and 64. */
struct file small_gguf(void);

#endif
