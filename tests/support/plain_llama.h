/*
 * plain_llama: the Llama network as a textbook has it, one sequence, everything in double and at once: no tiles, pages,
 * ranks or kernels. Slow; what it shares with the real one is the GGUF reader and the numbers of struct model.
 */
#ifndef QUIRE_TESTS_PLAIN_LLAMA_H
#define QUIRE_TESTS_PLAIN_LLAMA_H

#include <stdint.h>

#include "model/gguf.h"
#include "model/model.h"

/*
 * logits (count, vocab). With pages, attention takes K and V from there, where somebody else has put them rounded to f16,
 * instead of its own; returned is by how much the worst of them is farther from its own than half a step of f16.
 */
double plain_llama(const struct model *m, const struct gguf *g, const uint32_t *ids, uint32_t count,
                   uint8_t *const *pages, float *logits);

#endif
