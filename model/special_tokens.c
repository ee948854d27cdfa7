/* special_tokens: see special_tokens.h. */
#include "model/special_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "base/must.h"

static int by_bytes(const void *a, const void *b)
{
    const struct special_token *x = a, *y = b;
    size_t shared = x->text.length < y->text.length ? x->text.length : y->text.length;
    int order = memcmp(x->text.at, y->text.at, shared);
    if (order != 0)
        return order;
    if (x->text.length != y->text.length)
        return x->text.length < y->text.length ? -1 : 1;
    return x->id < y->id ? 1 : -1;
}

void special_tokens_init(struct special_tokens *s, struct special_token *tokens, size_t count)
{
    *s = (struct special_tokens){.sorted = tokens, .count = count};
    if (count > 0)
        qsort(tokens, count, sizeof *tokens, by_bytes);
    for (size_t i = 0; i < count; i++) {
        must(tokens[i].text.length > 0 && tokens[i].text.length <= SPECIAL_MAX_BYTES);
        s->first[(uint8_t)tokens[i].text.at[0] + 1]++;
    }
    for (size_t b = 0; b < 256; b++)
        s->first[b + 1] += s->first[b];
}

void special_tokens_fini(struct special_tokens *s)
{
    free(s->sorted);
    *s = (struct special_tokens){0};
}

/* The first of sorted[low, high) whose next byte is not below; they agree in their first `depth` bytes and are longer. */
static size_t first_not_below(const struct special_tokens *s, size_t low, size_t high, size_t depth, unsigned byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((uint8_t)s->sorted[middle].text.at[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const struct special_token *longest_at(const struct special_tokens *s, const char *text, size_t length)
{
    const struct special_token *best = NULL;
    size_t low = s->first[(uint8_t)text[0]];
    size_t high = s->first[(uint8_t)text[0] + 1];
    for (size_t depth = 1; low < high; depth++) {
        if (s->sorted[low].text.length == depth)
            best = &s->sorted[low]; /* the shortest stand first, of equal ones the latest id */
        while (low < high && s->sorted[low].text.length == depth)
            low++;
        if (depth == length)
            break;
        low = first_not_below(s, low, high, depth, (uint8_t)text[depth]);
        high = first_not_below(s, low, high, depth, (uint8_t)text[depth] + 1u);
    }
    return best;
}

const struct special_token *special_tokens_find(const struct special_tokens *s, const char *text, size_t length,
                                                size_t from, size_t *at)
{
    if (s->count == 0)
        return NULL;
    for (*at = from; *at < length; ++*at) {
        const struct special_token *found = longest_at(s, text + *at, length - *at);
        if (found)
            return found;
    }
    return NULL;
}
