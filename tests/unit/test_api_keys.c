/* Keys: who is let in, and that no tenant's salt says anything or is another's. */
#include "coordinator/api_keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static const char *file_of(const char *text)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/quire-test-keys-%d", (int)getpid());
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    return path;
}

static struct api_keys *keys_of(const char *text)
{
    static struct api_keys k;
    struct why why;
    const char *path = file_of(text);
    enum err e = api_keys_open(&k, path, NULL, &why);
    unlink(path);
    if (e)
        fail_msg("%s", why.text);
    return &k;
}

static void without_a_file_everybody_is_let_in(void **state)
{
    struct api_keys k;
    struct why why;
    uint64_t salt = 5;
    (void)state;
    assert_int_equal(api_keys_open(&k, "", NULL, &why), OK);
    assert_true(api_keys_allow(&k, NULL, NULL, &salt));
    assert_int_equal(salt, 0);
    assert_true(api_keys_allow(&k, "Bearer whatever", "x", &salt));
    assert_int_equal(salt, 0);
}

static void a_key_is_taken_from_either_header(void **state)
{
    uint64_t salt;
    (void)state;
    struct api_keys *k = keys_of("# ours\n\nsk-one\nsk-two\r\n");
    assert_int_equal(k->count, 2);
    assert_true(api_keys_allow(k, "Bearer sk-one", NULL, &salt));
    assert_true(api_keys_allow(k, "bearer sk-two", NULL, &salt));
    assert_true(api_keys_allow(k, NULL, "sk-two", &salt));
    assert_true(api_keys_allow(k, "Basic c2stb25l", "sk-one", &salt));
}

static void anything_else_is_not_let_in(void **state)
{
    uint64_t salt = 5;
    (void)state;
    struct api_keys *k = keys_of("sk-one\n# sk-two\n");
    static const char *const wrong[] = {"",        " ",      "sk-on",    "sk-one ", " sk-one",
                                        "sk-onee", "SK-ONE", "# sk-two", "sk-two",  "\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char header[64];
        snprintf(header, sizeof header, "Bearer %s", wrong[i]);
        assert_false(api_keys_allow(k, header, NULL, &salt));
        assert_false(api_keys_allow(k, NULL, wrong[i], &salt));
        assert_int_equal(salt, 0);
    }
    assert_false(api_keys_allow(k, NULL, NULL, &salt));
    assert_false(api_keys_allow(k, "sk-one", NULL, &salt)); /* no scheme */
    assert_false(api_keys_allow(k, "Bearer", NULL, &salt));
}

static void each_tenant_has_a_salt_of_its_own(void **state)
{
    uint64_t one, two, again;
    (void)state;
    struct api_keys *k = keys_of("sk-one\nsk-two\n");
    assert_true(api_keys_allow(k, "Bearer sk-one", NULL, &one));
    assert_true(api_keys_allow(k, "Bearer sk-two", NULL, &two));
    assert_true(api_keys_allow(k, NULL, "sk-one", &again));
    assert_true(one && two && one != two && one == again);
    assert_true(api_keys_salt(k, one, 0) == one);
    assert_true(api_keys_salt(k, 0, 0) == 0);
    assert_true(api_keys_salt(k, one, 7) != one);
    assert_true(api_keys_salt(k, one, 7) != api_keys_salt(k, two, 7));
    assert_true(api_keys_salt(k, one, 7) != api_keys_salt(k, one, 8));
    assert_true(api_keys_salt(k, 0, two) != two); /* nobody reaches another's pages by naming his salt */
}

static void salts_differ_from_start_to_start(void **state)
{
    uint64_t before, after;
    (void)state;
    assert_true(api_keys_allow(keys_of("sk-one\n"), NULL, "sk-one", &before));
    assert_true(api_keys_allow(keys_of("sk-one\n"), NULL, "sk-one", &after));
    assert_true(before != after);
}

/* The published vector of 16 bytes (vectors.h beside the reference implementation): key and message 00 01 02 … 0f. */
static void the_hash_is_siphash_2_4(void **state)
{
    static const struct api_keys k = {.secret = {0x0706050403020100, 0x0f0e0d0c0b0a0908}};
    (void)state;
    assert_true(api_keys_salt(&k, 0x0706050403020100, 0x0f0e0d0c0b0a0908) == 0x3f2acc7f57c29bdb);
}

static void a_file_without_a_key_or_with_too_many_is_refused(void **state)
{
    static struct api_keys k;
    struct why why;
    (void)state;
    const char *path = file_of("# nothing\n\n");
    assert_int_equal(api_keys_open(&k, path, NULL, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "has no key"));
    char *many = calloc(1, 8 * (API_KEYS_MAX + 2));
    for (uint32_t i = 0; i <= API_KEYS_MAX; i++)
        snprintf(many + strlen(many), 8, "k%u\n", i);
    assert_int_equal(api_keys_open(&k, file_of(many), NULL, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "more than 1024 keys"));
    free(many);
    char longest[API_KEY_MAX + 3];
    memset(longest, 'k', sizeof longest);
    longest[API_KEY_MAX + 1] = '\n';
    longest[API_KEY_MAX + 2] = 0;
    assert_int_equal(api_keys_open(&k, file_of(longest), NULL, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "more than 512 bytes"));
    strcpy(longest + API_KEY_MAX, "\n");
    assert_int_equal(api_keys_open(&k, file_of(longest), NULL, &why), OK);
    longest[API_KEY_MAX] = 0; /* without a line's end */
    assert_int_equal(api_keys_open(&k, file_of(longest), NULL, &why), OK);
    uint64_t salt;
    assert_true(api_keys_allow(&k, NULL, longest, &salt));
    unlink(path);
    assert_int_equal(api_keys_open(&k, "/nowhere/keys", NULL, &why), ERR_IO);
    assert_string_equal(why.text, "could not read the API keys \"/nowhere/keys\": No such file or directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_file_everybody_is_let_in),
        cmocka_unit_test(a_key_is_taken_from_either_header),
        cmocka_unit_test(anything_else_is_not_let_in),
        cmocka_unit_test(each_tenant_has_a_salt_of_its_own),
        cmocka_unit_test(salts_differ_from_start_to_start),
        cmocka_unit_test(the_hash_is_siphash_2_4),
        cmocka_unit_test(a_file_without_a_key_or_with_too_many_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
