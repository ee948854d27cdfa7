/* Bytes of a connection: a head and a chunked body. Cut in pieces they must say what they say whole. First byte: the size of the pieces. */
#include "base/must.h"
#include "coordinator/http_chunked.h"
#include "coordinator/http_head.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static const struct http_head_limits limits = {.head_bytes = 2048, .uri_bytes = 512, .fields = 20};

/* Feeds pieces of at most `piece` bytes, each of its own memory, so that a look beyond it is seen. Returns what was taken. */
static size_t feed_head(struct http_head *h, const char *bytes, size_t length, size_t piece,
                        enum http_progress *progress)
{
    size_t at = 0;
    *progress = HTTP_MORE;
    while (*progress == HTTP_MORE && at < length) {
        size_t n = length - at < piece ? length - at : piece, taken = 0;
        char *copy = malloc(n);
        must(copy);
        memcpy(copy, bytes + at, n);
        *progress = http_head_feed(h, copy, n, &taken);
        must(taken <= n && (*progress != HTTP_MORE || taken == n));
        at += taken;
        free(copy);
    }
    return at;
}

static uint64_t feed_chunked(const char *bytes, size_t length, size_t piece, enum chunked_progress *progress)
{
    struct http_chunked c;
    uint64_t sum = 0;
    http_chunked_init(&c);
    *progress = CHUNKED_MORE;
    for (size_t at = 0; at < length && *progress != CHUNKED_END && *progress != CHUNKED_BAD;) {
        size_t n = length - at < piece ? length - at : piece, taken, data_bytes = 0;
        const char *data = NULL;
        *progress = http_chunked_feed(&c, bytes + at, n, &taken, &data, &data_bytes);
        must(taken <= n);
        if (*progress == CHUNKED_DATA)
            for (size_t i = 0; i < data_bytes; i++)
                sum = sum * 31 + (unsigned char)data[i];
        else
            must(taken > 0 || *progress != CHUNKED_MORE);
        at += taken;
    }
    return sum;
}

static void compare_heads(const struct http_head *a, const struct http_head *b)
{
    must(strcmp(a->path, b->path) == 0 && strcmp(a->query, b->query) == 0 && a->method == b->method);
    must(a->content_length == b->content_length && a->chunked == b->chunked && a->keep_alive == b->keep_alive);
    must(a->field_count == b->field_count && !(a->chunked && a->content_length));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const char *bytes = (const char *)data + 1;
    size_t piece = data[0] % 61 + 1u;
    struct http_head whole, cut;
    enum http_progress one, other;
    http_head_init(&whole, &limits);
    http_head_init(&cut, &limits);
    size_t taken = feed_head(&whole, bytes, size - 1, size, &one);
    size_t taken_cut = feed_head(&cut, bytes, size - 1, piece, &other);
    must(one == other);
    if (one == HTTP_DONE) {
        must(taken == taken_cut);
        compare_heads(&whole, &cut);
    } else if (one == HTTP_REFUSED) {
        must(whole.status == cut.status && whole.status >= 400 && strcmp(whole.problem, cut.problem) == 0);
        taken = 0;
    }
    http_head_fini(&whole);
    http_head_fini(&cut);

    enum chunked_progress end, end_cut;
    uint64_t sum = feed_chunked(bytes + taken, size - 1 - taken, size, &end);
    uint64_t sum_cut = feed_chunked(bytes + taken, size - 1 - taken, piece, &end_cut);
    must(sum == sum_cut && (end == CHUNKED_END) == (end_cut == CHUNKED_END) &&
         (end == CHUNKED_BAD) == (end_cut == CHUNKED_BAD));
    return 0;
}
