/* Every option by its name, from the command line and from a file, and deploy/quire.conf names them all. */
#include "coordinator/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum kind { TEXT, LIST, COUNT, BYTES, FLAG };

static const struct entry {
    enum kind kind;
    uint32_t groups;
    const char *name, *fallback, *help;
    uint64_t least, most;
    size_t offset, size;
} entries[] = {
#define X(kind, groups, field, name, fallback, least, most, help) \
    {kind,                                                        \
     groups,                                                      \
     name,                                                        \
     fallback,                                                    \
     help,                                                        \
     least,                                                       \
     most,                                                        \
     offsetof(struct serve_options, field),                       \
     sizeof(((struct serve_options *)0)->field)},
    SERVE_OPTIONS(X)
#undef X
};

enum { ENTRIES = sizeof entries / sizeof *entries };

static const char *file_of(const char *text)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/quire-test-options-%d", (int)getpid());
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    return path;
}

static enum err parse(struct serve_options *o, struct why *why, const char *const *words, int count)
{
    const char *argv[16] = {"serve"}, *rest;
    uint32_t rest_count;
    memcpy(argv + 1, words, (size_t)count * sizeof *words);
    serve_options_init(o);
    return serve_options_parse(o, OF_ALL, count + 1, (char **)argv, &rest, 0, &rest_count, why);
}

#define PARSE(o, why, ...) \
    parse(o, why, (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* A value that an option takes and that is not its default. */
static const char *another_value(const struct entry *entry)
{
    if (strcmp(entry->name, "kernels") == 0)
        return "avx2";
    if (strcmp(entry->name, "prefill-math") == 0)
        return "blas";
    if (strcmp(entry->name, "quantize") == 0)
        return "q4_k";
    if (strcmp(entry->name, "kv-type") == 0)
        return "q8";
    if (strcmp(entry->name, "activations") == 0)
        return "f32";
    if (strcmp(entry->name, "log-level") == 0)
        return "warn";
    static char text[32];
    uint64_t number = entry->least + 2;
    snprintf(text, sizeof text,
             entry->kind == TEXT || entry->kind == LIST ? "/some/where"
             : entry->kind == FLAG                      ? "yes"
                                                        : "%llu",
             (unsigned long long)number);
    return text;
}

static bool differ_only_in(const struct serve_options *a, const struct serve_options *b, const struct entry *entry)
{
    for (size_t i = 0; i < ENTRIES; i++) {
        const struct entry *e = &entries[i];
        bool same = memcmp((const char *)a + e->offset, (const char *)b + e->offset, e->size) == 0;
        if (same == (e == entry))
            return false;
    }
    return true;
}

static void each_option_is_set_by_its_name_and_nothing_else_is(void **state)
{
    struct serve_options defaults, glued, apart, filed;
    struct why why;
    (void)state;
    serve_options_init(&defaults);
    for (size_t i = 0; i < ENTRIES; i++) {
        const struct entry *e = &entries[i];
        char word[64], both[128], line[160];
        snprintf(word, sizeof word, "--%s", e->name);
        snprintf(both, sizeof both, "--%s=%s", e->name, another_value(e));
        snprintf(line, sizeof line, "\n  # a comment\n %s =  %s \n", e->name, another_value(e));
        assert_int_equal(PARSE(&glued, &why, both), OK);
        assert_true(differ_only_in(&glued, &defaults, e));
        if (e->kind == FLAG)
            assert_int_equal(PARSE(&apart, &why, word), OK);
        else
            assert_int_equal(PARSE(&apart, &why, word, another_value(e)), OK);
        assert_true(differ_only_in(&apart, &defaults, e));
        serve_options_init(&filed);
        assert_int_equal(serve_options_read_file(&filed, OF_ALL, file_of(line), &why), OK);
        assert_true(differ_only_in(&filed, &defaults, e));
    }
    unlink(file_of(""));
}

static void what_lies_beyond_an_options_bounds_is_refused_by_name(void **state)
{
    struct serve_options o;
    struct why why;
    (void)state;
    for (size_t i = 0; i < ENTRIES; i++) {
        const struct entry *e = &entries[i];
        if (e->kind != COUNT && e->kind != BYTES)
            continue;
        char bad[3][32] = {"", "", "4x"};
        snprintf(bad[0], sizeof bad[0], "%llu", (unsigned long long)e->least - 1); /* below 0: too large */
        snprintf(bad[1], sizeof bad[1], e->most == UINT64_MAX ? "99999999999999999999" : "%llu",
                 (unsigned long long)e->most + 1);
        for (size_t b = 0; b < 3; b++) {
            if (b == 0 && e->least == 0)
                snprintf(bad[0], sizeof bad[0], "-1");
            assert_int_equal(serve_option_set(&o, e->name, bad[b], &why), ERR_INVALID);
            assert_non_null(strstr(why.text, e->name));
        }
    }
}

static void the_command_line_is_read_from_left_to_right(void **state)
{
    struct serve_options o;
    struct why why;
    (void)state;
    const char *path = file_of("port = 1111\nmax-queue = 7\n");
    assert_int_equal(PARSE(&o, &why, "--port", "2222", "--config", path, "-m", "a.gguf"), OK);
    assert_int_equal(o.port, 1111);
    assert_string_equal(o.model, "a.gguf");
    assert_int_equal(PARSE(&o, &why, "--config", path, "--port", "2222"), OK);
    assert_int_equal(o.port, 2222);
    assert_int_equal(o.max_queue, 7);
    unlink(path);
}

static void wrong_words_get_one_sentence(void **state)
{
    struct serve_options o;
    struct why why;
    (void)state;
    assert_int_equal(PARSE(&o, &why, "--prot", "1"), ERR_INVALID);
    assert_string_equal(why.text, "there is no option \"--prot\"; quire help serve lists them");
    assert_int_equal(PARSE(&o, &why, "-p"), ERR_INVALID);
    assert_int_equal(PARSE(&o, &why, "--port"), ERR_INVALID);
    assert_string_equal(why.text, "--port wants a value");
    assert_int_equal(PARSE(&o, &why, "--port", "http"), ERR_INVALID);
    assert_string_equal(why.text, "--port: \"http\" is no whole number");
    assert_int_equal(PARSE(&o, &why, "--port", "65536"), ERR_INVALID);
    assert_string_equal(why.text, "--port: 65536 is not between 0 and 65535");
    assert_int_equal(PARSE(&o, &why, "model.gguf"), ERR_INVALID);
    assert_string_equal(why.text, "\"model.gguf\" is one word too many");
    assert_int_equal(PARSE(&o, &why, "--no-pin=perhaps"), ERR_INVALID);
    assert_string_equal(why.text, "--no-pin: \"perhaps\" is neither yes nor no");
    assert_int_equal(PARSE(&o, &why, "--config", "/nowhere/quire.conf"), ERR_IO);
    assert_non_null(strstr(why.text, "\"/nowhere/quire.conf\": No such file"));
    char longest[OPTION_TEXT_BYTES + 1];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    assert_int_equal(PARSE(&o, &why, "--model", longest), ERR_INVALID);
    longest[OPTION_TEXT_BYTES - 1] = 0;
    assert_int_equal(PARSE(&o, &why, "--model", longest), OK);
}

static enum err parse_of(struct serve_options *o, uint32_t groups, const char *word, const char *value, struct why *why)
{
    const char *argv[] = {"brew", word, value}, *rest;
    uint32_t rest_count;
    serve_options_init(o);
    return serve_options_parse(o, groups, value ? 3 : 2, (char **)argv, &rest, 0, &rest_count, why);
}

static void a_command_takes_the_options_of_its_groups_and_refuses_the_others_by_name(void **state)
{
    struct serve_options defaults, o;
    struct why why;
    (void)state;
    serve_options_init(&defaults);
    for (uint32_t groups = 0; groups <= OF_ALL; groups++)
        for (size_t i = 0; i < ENTRIES; i++) {
            const struct entry *e = &entries[i];
            char word[128], expected[160];
            snprintf(word, sizeof word, "--%s=%s", e->name, another_value(e));
            enum err got = parse_of(&o, groups, word, NULL, &why);
            assert_int_equal(got, e->groups & groups ? OK : ERR_INVALID);
            if (!got) {
                assert_true(differ_only_in(&o, &defaults, e));
                continue;
            }
            snprintf(expected, sizeof expected, "this command takes no option \"--%s\"; quire help brew lists them",
                     e->name);
            assert_string_equal(why.text, expected);
        }
}

static void a_file_holds_options_for_all_commands(void **state)
{
    struct serve_options o;
    struct why why;
    (void)state;
    const char *path = file_of("name = some\nport = 7\nkeep = yes\n");
    assert_int_equal(parse_of(&o, OF_MEMORY, "--config", path, &why), OK);
    assert_string_equal(o.name, "some");
    assert_int_equal(o.port, 8080);
    assert_false(o.keep);
    assert_int_equal(parse_of(&o, OF_MEMORY, "--config", file_of("port = 70000\n"), &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "70000"));
    assert_int_equal(parse_of(&o, OF_MEMORY, "--config", file_of("prot = 7\n"), &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "\"--prot\""));
    unlink(path);
}

static void a_bad_line_is_told_with_its_number(void **state)
{
    struct serve_options o;
    struct why why;
    char expected[256];
    (void)state;
    const char *path = file_of("# all is well\nport = 80\nport 81\n");
    assert_int_equal(serve_options_read_file(&o, OF_ALL, path, &why), ERR_INVALID);
    snprintf(expected, sizeof expected, "%s:3: \"port 81\" is no line of the form name = value", path);
    assert_string_equal(why.text, expected);
    unlink(path);
}

static void a_line_that_is_too_long_is_not_read_as_two(void **state)
{
    struct serve_options o;
    struct why why;
    static char text[OPTION_TEXT_BYTES + 256] = "model = ";
    (void)state;
    memset(text + 8, ' ', OPTION_TEXT_BYTES + 128 - 9); /* the reader's buffer ends here, and a line seems to begin */
    strcpy(text + OPTION_TEXT_BYTES + 127, "port = 5\n");
    serve_options_init(&o);
    const char *path = file_of(text);
    assert_int_equal(serve_options_read_file(&o, OF_ALL, path, &why), ERR_INVALID);
    assert_int_equal(o.port, 8080);
    unlink(path);
}

static void bytes_have_units(void **state)
{
    uint64_t n;
    struct why why;
    (void)state;
    assert_int_equal(parse_bytes("65536", &n, &why), OK);
    assert_int_equal(n, 65536);
    assert_int_equal(parse_bytes("8k", &n, &why), OK);
    assert_int_equal(n, 8192);
    assert_int_equal(parse_bytes("512M", &n, &why), OK);
    assert_int_equal(n, 512 << 20);
    assert_int_equal(parse_bytes("2G", &n, &why), OK);
    assert_true(n == 2ull << 30);
    assert_int_equal(parse_bytes("3T", &n, &why), OK);
    assert_true(n == 3ull << 40);
    static const char *const bad[] = {"",         "G", "-1", "+1", " 1", "1 G", "1GB", "0x10", "18446744073709551616",
                                      "16777216T"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(parse_bytes(bad[i], &n, &why), ERR_INVALID);
}

static void counts_are_whole_numbers_of_32_bits(void **state)
{
    uint32_t n;
    struct why why;
    (void)state;
    assert_int_equal(parse_count("4294967295", &n, &why), OK);
    assert_true(n == UINT32_MAX);
    static const char *const bad[] = {"", "4294967296", "99999999999999999999999", "-1", "+1", "1.5", " 1", "1 ", "1k"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(parse_count(bad[i], &n, &why), ERR_INVALID);
}

/* ---- deploy/quire.conf ---- */

static char *configuration(void)
{
    char path[1024];
    const char *root = getenv("QUIRE_ROOT");
    snprintf(path, sizeof path, "%.900s/deploy/quire.conf", root ? root : ".");
    FILE *f = fopen(path, "re");
    if (!f)
        fail_msg("there is no %s", path);
    char *text = calloc(1, 1 << 16);
    assert_non_null(text);
    size_t length = fread(text, 1, (1 << 16) - 1, f);
    assert_in_range(length, 1, (1 << 16) - 2);
    fclose(f);
    return text;
}

/* What the file says of an option: its help, then it, with its default and behind a #. */
static void lines_of(const struct entry *e, char out[512])
{
    const char *fallback = e->kind == FLAG && !*e->fallback ? "no" : e->fallback;
    snprintf(out, 512, "\n# %s\n#%s =%s%s\n", e->help, e->name, *fallback ? " " : "", fallback);
}

static void the_sample_configuration_names_every_option_with_its_help_and_default(void **state)
{
    char *text = configuration(), lines[512];
    (void)state;
    for (size_t i = 0; i < ENTRIES; i++) {
        lines_of(&entries[i], lines);
        if (!strstr(text, lines))
            fail_msg("deploy/quire.conf lacks these lines:%s", lines);
    }
    free(text);
}

static void the_sample_configuration_names_nothing_else(void **state)
{
    char *text = configuration();
    (void)state;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        assert_int_equal(line[0], '#'); /* as it stands it changes nothing */
        if (!line[1] || line[1] == ' ')
            continue;
        char name[64] = "";
        assert_int_equal(sscanf(line + 1, "%63s =", name), 1);
        bool known = false;
        for (size_t i = 0; i < ENTRIES; i++)
            known |= strcmp(entries[i].name, name) == 0;
        if (!known)
            fail_msg("deploy/quire.conf names \"%s\", which is no option", name);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_option_is_set_by_its_name_and_nothing_else_is),
        cmocka_unit_test(what_lies_beyond_an_options_bounds_is_refused_by_name),
        cmocka_unit_test(the_command_line_is_read_from_left_to_right),
        cmocka_unit_test(wrong_words_get_one_sentence),
        cmocka_unit_test(a_command_takes_the_options_of_its_groups_and_refuses_the_others_by_name),
        cmocka_unit_test(a_file_holds_options_for_all_commands),
        cmocka_unit_test(a_bad_line_is_told_with_its_number),
        cmocka_unit_test(a_line_that_is_too_long_is_not_read_as_two),
        cmocka_unit_test(bytes_have_units),
        cmocka_unit_test(counts_are_whole_numbers_of_32_bits),
        cmocka_unit_test(the_sample_configuration_names_every_option_with_its_help_and_default),
        cmocka_unit_test(the_sample_configuration_names_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
