/*
 * unicode_fold: characters as WordPiece's uncased models see them: decomposed, without marks, small; and the classes of characters that cut
 * their text. Decomposition: Unicode Standard Annex 15 (NFD), Hangul by arithmetic (The Unicode Standard, 3.12); the rest stands in tables.
 */
#ifndef QUIRE_MODEL_UNICODE_FOLD_H
#define QUIRE_MODEL_UNICODE_FOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UNICODE_FOLD_MOST = 4 };

/* Writes what the character becomes; gives how many, 0 for a mark. */
size_t unicode_fold(uint32_t code, uint32_t out[UNICODE_FOLD_MOST]);

/* General category P. */
bool unicode_is_punctuation(uint32_t code);
/* Controls, format characters and private use: Cc, Cf, Co. Tabs and line ends are among them. */
bool unicode_is_control(uint32_t code);
/* Property White_Space. */
bool unicode_is_blank(uint32_t code);

#endif
