/*
 * hub_tokenizer: tokenizer.json and what stands beside it, in the keys tokenizer.ggml.* of GGUF, which tokenizer.h reads.
 *
 * Kinds: byte-level BPE ("gpt2"), BPE over characters with byte fallback as converted from SentencePiece ("llama": the order of the merges
 * becomes the scores), WordPiece ("bert"). Everything else is refused by its type: a tokenizer that is nearly right is wrong, and nobody
 * would notice. Not refused are normalizers to NFC (Qwen's), which are left out: text is taken as it comes.
 */
#ifndef QUIRE_MODEL_HUB_TOKENIZER_H
#define QUIRE_MODEL_HUB_TOKENIZER_H

#include <jansson.h>

#include "base/err.h"
#include "model/gguf_header.h"

struct hub_tokenizer {
    const char *directory; /* for messages */
    const json_t *tokenizer;
    const json_t *settings, *config, *generation; /* NULL: there is none */
    const char *template_text;                    /* of chat_template.jinja; NULL: what the settings say */
    size_t template_bytes;
};

enum err hub_tokenizer_translate(struct gguf_header *header, const struct hub_tokenizer *from, struct why *why);

#endif
