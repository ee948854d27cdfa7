/* vectors: see vectors.h. */
#include "tests/support/vectors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

void vectors_path(const char *file, char path[512])
{
    const char *root = getenv("QUIRE_ROOT");
    const char *fixtures = getenv("QUIRE_FIXTURES");
    if (strncmp(file, "models/", 7) == 0)
        snprintf(path, 512, "%s/%s", root ? root : ".", file);
    else if (fixtures)
        snprintf(path, 512, "%s/%s", fixtures, file);
    else
        snprintf(path, 512, "%s/../shared/fixtures/%s", root ? root : ".", file);
    if (access(path, R_OK) != 0) {
        print_message("skipped: no %s\n", path);
        skip();
    }
}

char *vectors_text(const char *file, size_t *length)
{
    char path[512];
    vectors_path(file, path);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long bytes = ftell(f);
    assert_true(bytes >= 0);
    rewind(f);
    char *text = malloc((size_t)bytes + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)bytes, f), bytes);
    fclose(f);
    text[bytes] = '\0';
    *length = (size_t)bytes;
    return text;
}

json_t *vectors_json(const char *file)
{
    size_t length;
    char *text = vectors_text(file, &length);
    json_error_t error;
    json_t *json = json_loadb(text, length, JSON_ALLOW_NUL, &error);
    if (!json)
        fail_msg("%s: %s", file, error.text);
    free(text);
    return json;
}

struct tokenizer *vectors_tokenizer(const char *file)
{
    char path[512];
    struct why why;
    struct gguf *g;
    struct tokenizer *t = NULL;
    vectors_path(file, path);
    if (gguf_open(&g, path, &why) != OK || tokenizer_open(&t, g, &why) != OK)
        fail_msg("%s: %s", file, why.text);
    gguf_close(g); /* the tokenizer keeps nothing of it */
    return t;
}

struct token_list vectors_encode(const struct tokenizer *t, const char *text, size_t length, bool special)
{
    struct token_list list = {0};
    struct why why;
    if (tokenizer_encode(t, text, length, special, &list, &why) != OK)
        fail_msg("%s", why.text);
    return list;
}

/* The pieces put together; malloc'ed. */
static char *decode(const struct tokenizer *t, const struct token_list *list, size_t *length)
{
    char *text = malloc(list->count * tokenizer_longest_piece(t) + 1);
    assert_non_null(text);
    *length = 0;
    for (size_t i = 0; i < list->count; i++) {
        size_t bytes;
        const char *piece = tokenizer_piece(t, list->ids[i], true, &bytes);
        memcpy(text + *length, piece, bytes);
        *length += bytes;
    }
    return text;
}

/* One string of a .inp file against one line of ids of its .out file. */
static void check_line(const struct tokenizer *t, const char *text, size_t length, const char *line)
{
    struct token_list list = vectors_encode(t, text, length, false);
    size_t count = 0;
    for (char *end; *line && *line != '\n'; line = end) {
        unsigned long id = strtoul(line, &end, 10);
        if (end == line)
            break;
        assert_true(count < list.count);
        assert_int_equal(list.ids[count++], id);
    }
    assert_int_equal(count, list.count);
    token_list_fini(&list);
}

void vectors_check_vocabulary(const char *name)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char file[128];
    size_t length;
    snprintf(file, sizeof file, "tokenizers/ggml-vocab-%s.gguf", name);
    struct tokenizer *t = vectors_tokenizer(file);
    snprintf(file, sizeof file, "tokenizers/ggml-vocab-%s.gguf.inp", name);
    char *texts = vectors_text(file, &length);
    snprintf(file, sizeof file, "tokenizers/ggml-vocab-%s.gguf.out", name);
    char *lines = vectors_text(file, &length);
    const char *text = texts;
    int checked = 0;
    for (const char *line = lines; line && *line; checked++) {
        const char *end = strstr(text, separator);
        check_line(t, text, end ? (size_t)(end - text) : strlen(text), line);
        text = end ? end + sizeof separator - 1 : text + strlen(text);
        line = strchr(line, '\n');
        line += line != NULL;
    }
    assert_true(checked > 40);
    free(texts);
    free(lines);
    tokenizer_close(t);
}

static void assert_ids(const struct token_list *list, const json_t *ids)
{
    assert_int_equal(list->count, json_array_size(ids));
    for (size_t i = 0; i < list->count; i++)
        assert_int_equal(list->ids[i], json_integer_value(json_array_get(ids, i)));
}

void vectors_check_random(const char *model, const char *file)
{
    char path[512];
    vectors_path(model, path); /* first: a skipped test cleans nothing up */
    json_t *vectors = vectors_json(file);
    struct tokenizer *t = vectors_tokenizer(model);
    json_t *items = json_object_get(vectors, "items");
    assert_true(json_array_size(items) >= 100);
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        const json_t *text = json_object_get(item, "text");
        struct token_list plain = vectors_encode(t, json_string_value(text), json_string_length(text), false);
        assert_ids(&plain, json_object_get(item, "ids"));
        token_list_fini(&plain);
        struct token_list special = vectors_encode(t, json_string_value(text), json_string_length(text), true);
        assert_ids(&special, json_object_get(item, "ids_special"));
        token_list_fini(&special);
    }
    tokenizer_close(t);
    json_decref(vectors);
}

void vectors_check_any_bytes_come_back(const char *file, size_t in_front)
{
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    struct tokenizer *t = vectors_tokenizer(file);
    for (int round = 0; round < 2000; round++) {
        char text[64];
        size_t length = 1 + (size_t)rand_r(&seed) % sizeof text;
        for (size_t i = 0; i < length; i++)
            text[i] = (char)(rand_r(&seed) % 3 ? rand_r(&seed) % 256 : "\xE2\x96\xC3\xA9\xF0 a\0"[rand_r(&seed) % 8]);
        for (char *c = text; c < text + length; c++)
            *c = *c == '\x81' ? 'x' : *c; /* U+2581 itself comes back as the blank that it stands for */
        struct token_list list = vectors_encode(t, text, length, false);
        size_t bytes;
        char *back = decode(t, &list, &bytes);
        assert_int_equal(bytes, length + in_front);
        assert_memory_equal(back + in_front, text, length);
        free(back);
        token_list_fini(&list);
    }
    tokenizer_close(t);
}

void vectors_check_long_runs(const char *file)
{
    enum { BYTES = 1 << 20 };
    static const char *const runs[] = {"a", " ", "\n", "<|", "\xE2\x96\x81"};
    struct tokenizer *t = vectors_tokenizer(file);
    char *text = malloc(BYTES);
    assert_non_null(text);
    for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
        size_t unit = strlen(runs[r]), length = 0;
        for (; length + unit <= BYTES; length += unit)
            memcpy(text + length, runs[r], unit);
        uint64_t before = now_us();
        struct token_list list = vectors_encode(t, text, length, true);
        assert_true(now_us() - before < 60 * 1000 * 1000); /* its square would take hours */
        assert_true(list.count > 0 && list.count <= length + 1);
        token_list_fini(&list);
    }
    free(text);
    tokenizer_close(t);
}
