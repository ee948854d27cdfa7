/* answer_text: see answer_text.h. */
#include "coordinator/answer_text.h"

#include <stdlib.h>

#include "base/must.h"
#include "model/tokenizer.h"

/* In ends[i]: the last character of token i is completed by a later token. */
#define CHARACTER_OPEN (1u << 31)

void answer_text_init(struct answer_text *a, const struct api_context *context, const struct api_request *request)
{
    *a = (struct answer_text){.tokenizer = context->tokenizer, .request = request};
    detokenizer_init(&a->detokenizer);
}

void answer_text_fini(struct answer_text *a)
{
    text_fini(&a->text);
    free(a->ends);
    a->ends = NULL;
}

size_t answer_text_end(const struct answer_text *a, uint32_t i)
{
    must(i < a->tokens);
    return a->ends[i] & ~CHARACTER_OPEN;
}

size_t answer_text_begin(const struct answer_text *a, uint32_t i)
{
    return i == 0 ? 0 : answer_text_end(a, i - 1);
}

size_t answer_text_shown_bytes(const struct answer_text *a)
{
    return answer_text_begin(a, a->shown);
}

static bool has_room(struct answer_text *a)
{
    if (a->tokens < a->room)
        return true;
    uint32_t room = a->room ? 2 * a->room : 64;
    uint32_t *grown = realloc(a->ends, room * sizeof *grown);
    if (!grown)
        return false;
    a->ends = grown;
    a->room = room;
    return true;
}

/* Ends at once: nothing is held back any more. */
static bool finish_with(struct answer_text *a, uint32_t shown)
{
    a->shown = shown;
    a->finished = true;
    return true;
}

static bool fail(struct answer_text *a)
{
    a->text.failed = true;
    return finish_with(a, a->shown);
}

/* A stop string begins at `cut`: the text ends there, and so does the token that it begins in. */
static bool finish_at(struct answer_text *a, size_t cut)
{
    uint32_t worded = a->tokens;
    while (worded > a->shown && answer_text_begin(a, worded - 1) >= cut)
        worded--;
    a->text.length = cut;
    if (worded > 0 && answer_text_end(a, worded - 1) > cut)
        a->ends[worded - 1] = (uint32_t)cut;
    detokenizer_init(&a->detokenizer);
    return finish_with(a, worded);
}

/* True: a stop string ends within the bytes from `from` on, which have come with the last token. */
static bool find_stop(struct answer_text *a, size_t from, size_t *cut)
{
    if (a->request->stops.count == 0 || a->tokens <= a->request->sampling.min_tokens)
        return false;
    for (size_t i = from; i < a->text.length; i++) {
        size_t found = stop_strings_feed(&a->request->stops, &a->stop_state, a->text.at[i]);
        if (found > 0) {
            *cut = i + 1 - found;
            return true;
        }
    }
    return false;
}

/* The last token whose text is whole and lies before what may begin a stop string. */
static void show_what_is_certain(struct answer_text *a)
{
    size_t certain = a->text.length - stop_strings_held(&a->request->stops, &a->stop_state);
    for (uint32_t i = a->shown; i < a->tokens && answer_text_end(a, i) <= certain; i++)
        if (!(a->ends[i] & CHARACTER_OPEN))
            a->shown = i + 1;
}

bool answer_text_push(struct answer_text *a, uint32_t token)
{
    must(!a->finished);
    if (!has_room(a))
        return fail(a);
    if (api_request_ends(a->request, token)) {
        answer_text_finish(a);
        a->ends[a->tokens++] = (uint32_t)a->text.length; /* counted and listed among the ids, but no part of the text */
        return true;
    }
    size_t length, from = a->text.length, cut;
    const char *piece = tokenizer_piece(a->tokenizer, token, false, &length);
    if (!text_reserve(&a->text, detokenizer_room(length)) ||
        a->text.length + detokenizer_room(length) >= CHARACTER_OPEN)
        return fail(a);
    a->text.length += detokenizer_push(&a->detokenizer, piece, length, a->text.at + from);
    a->ends[a->tokens++] = (uint32_t)a->text.length | (a->detokenizer.held_bytes > 0 ? CHARACTER_OPEN : 0);
    if (find_stop(a, from, &cut))
        return finish_at(a, cut);
    show_what_is_certain(a);
    return false;
}

void answer_text_finish(struct answer_text *a)
{
    if (a->finished)
        return;
    if (a->tokens > 0) {
        if (!text_reserve(&a->text, detokenizer_room(0))) {
            fail(a);
            return;
        }
        a->text.length += detokenizer_flush(&a->detokenizer, a->text.at + a->text.length);
        a->ends[a->tokens - 1] = (uint32_t)a->text.length;
    }
    finish_with(a, a->tokens);
}
