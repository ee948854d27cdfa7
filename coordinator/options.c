#include "coordinator/options.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/must.h"

enum option_kind { TEXT, LIST, COUNT, BYTES, FLAG };

struct option {
    enum option_kind kind;
    uint32_t groups;
    size_t offset; /* of the field in struct serve_options */
    const char *name;
    const char *fallback;
    uint64_t least, most;
    const char *help;
};

static const struct option options[] = {
#define X(kind, groups, field, name, fallback, least, most, help) \
    {kind, groups, offsetof(struct serve_options, field), name, fallback, least, most, help},
    SERVE_OPTIONS(X)
#undef X
};

enum { OPTION_COUNT = sizeof options / sizeof *options };

enum err parse_bytes(const char *text, uint64_t *out, struct why *why)
{
    char *end = (char *)text; /* nothing read yet */
    errno = 0;
    unsigned long long number = isdigit((unsigned char)*text) ? strtoull(text, &end, 10) : 0;
    uint64_t unit = 1;
    if (end != text) {
        switch (toupper((unsigned char)*end)) {
        case 'K':
            unit = 1u << 10;
            end++;
            break;
        case 'M':
            unit = 1u << 20;
            end++;
            break;
        case 'G':
            unit = 1u << 30;
            end++;
            break;
        case 'T':
            unit = 1ull << 40;
            end++;
            break;
        default:
            break;
        }
    }
    if (end == text || *end || errno || !checked_mul(number, unit, out))
        return because(why, ERR_INVALID, "\"%.60s\" is no number of bytes (such as 65536, 512M or 2G)", text);
    return OK;
}

enum err parse_count(const char *text, uint32_t *out, struct why *why)
{
    char *end = (char *)text; /* nothing read yet */
    errno = 0;
    unsigned long number = isdigit((unsigned char)*text) ? strtoul(text, &end, 10) : 0;
    if (end == text || *end || errno || number > UINT32_MAX)
        return because(why, ERR_INVALID, "\"%.60s\" is no whole number", text);
    *out = (uint32_t)number;
    return OK;
}

static const struct option *option_find(const char *name)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    return NULL;
}

static enum err set_flag(bool *flag, const char *value, struct why *why)
{
    if (!*value || strcmp(value, "yes") == 0 || strcmp(value, "true") == 0)
        *flag = true;
    else if (strcmp(value, "no") == 0 || strcmp(value, "false") == 0)
        *flag = false;
    else
        return because(why, ERR_INVALID, "\"%.60s\" is neither yes nor no", value);
    return OK;
}

enum { WORDS_MAX = 5 };

/* Texts that are one of a few words; "" where the option may stay unsaid. */
static const struct {
    const char *name;
    const char *words[WORDS_MAX];
} choices[] = {
    {"kernels", {"reference", "avx2", "avx512", "amx", ""}},
    {"quantize", {"q8_0", "q4_0", "q4_k", ""}},
    {"prefill-math", {"exact", "blas"}},
    {"activations", {"int8", "f32"}},
    {"kv-type", {"f16", "bf16", "f32", "q8"}},
    {"log-level", {"debug", "info", "warn", "error"}},
};

static enum err check_choice(const struct option *option, const char *value, struct why *why)
{
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        if (strcmp(choices[i].name, option->name) != 0)
            continue;
        char list[128] = "";
        for (size_t w = 0; w < WORDS_MAX && choices[i].words[w]; w++) {
            const char *word = choices[i].words[w];
            if (strcmp(value, word) == 0)
                return OK;
            if (*word)
                snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", *list ? ", " : "", word);
        }
        return because(why, ERR_INVALID, "--%s: \"%.60s\" is none of %s", option->name, value, list);
    }
    return OK;
}

/* What stands there already, and this behind it. */
static enum err append(const struct option *option, char *list, const char *value, struct why *why)
{
    size_t used = strlen(list);
    if (used + strlen(value) + 2 > OPTION_TEXT_BYTES)
        return because(why, ERR_INVALID, "--%s: all values together are longer than %d bytes", option->name,
                       OPTION_TEXT_BYTES - 1);
    snprintf(list + used, OPTION_TEXT_BYTES - used, "%s%s", used ? "," : "", value);
    return OK;
}

static enum err set_value(const struct option *option, void *field, const char *value, struct why *why)
{
    struct why what;
    uint64_t number = 0;
    enum err e = OK;
    switch (option->kind) {
    case TEXT:
        if (strlen(value) >= OPTION_TEXT_BYTES)
            return because(why, ERR_INVALID, "--%s: the value is longer than %d bytes", option->name,
                           OPTION_TEXT_BYTES - 1);
        snprintf(field, OPTION_TEXT_BYTES, "%s", value);
        return check_choice(option, value, why);
    case LIST:
        return append(option, field, value, why);
    case COUNT:
        e = parse_count(value, field, &what);
        number = *(uint32_t *)field;
        break;
    case BYTES:
        e = parse_bytes(value, field, &what);
        number = *(uint64_t *)field;
        break;
    case FLAG:
        e = set_flag(field, value, &what);
        break;
    }
    if (e)
        return because(why, e, "--%s: %s", option->name, what.text);
    if (option->kind != FLAG && (number < option->least || number > option->most))
        return because(why, ERR_INVALID, "--%s: %s is not between %llu and %llu", option->name, value,
                       (unsigned long long)option->least, (unsigned long long)option->most);
    return OK;
}

enum err serve_option_set(struct serve_options *o, const char *name, const char *value, struct why *why)
{
    const struct option *option = option_find(name);
    if (!option)
        return because(why, ERR_INVALID, "there is no option \"--%.60s\"; quire help serve lists them", name);
    return set_value(option, (char *)o + option->offset, value, why);
}

/* The same, where what is of no such group is only checked. */
static enum err set_of_groups(struct serve_options *o, uint32_t groups, const char *name, const char *value,
                              struct why *why)
{
    const struct option *option = option_find(name);
    struct serve_options unused = {0};
    return serve_option_set(option && !(option->groups & groups) ? &unused : o, name, value, why);
}

void serve_options_init(struct serve_options *o)
{
    *o = (struct serve_options){0};
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (*options[i].fallback)
            must(set_value(&options[i], (char *)o + options[i].offset, options[i].fallback, NULL) == OK);
}

/* One argument that begins with a dash, perhaps with the next one as its value. */
static enum err parse_dashed(struct serve_options *o, uint32_t groups, int argc, char **argv, int *at, struct why *why)
{
    const char *word = argv[*at];
    if (strcmp(word, "-m") == 0)
        word = "--model";
    if (strncmp(word, "--", 2) != 0 || !word[2])
        return because(why, ERR_INVALID, "there is no option \"%.60s\"; quire help %s lists them", word, argv[0]);
    char name[64];
    const char *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word) - 2 : strlen(word) - 2;
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), word + 2);

    const struct option *option = option_find(name);
    bool is_config = strcmp(name, "config") == 0;
    const char *value = equals ? equals + 1 : "";
    if (!is_config && !(option && option->groups & groups))
        return because(why, ERR_INVALID, "%s \"--%.60s\"; quire help %s lists them",
                       option ? "this command takes no option" : "there is no option", name, argv[0]);
    if (!equals && (is_config || option->kind != FLAG)) {
        if (*at + 1 >= argc)
            return because(why, ERR_INVALID, "--%s wants a value", name);
        value = argv[++*at];
    }
    return is_config ? serve_options_read_file(o, groups, value, why) : serve_option_set(o, name, value, why);
}

enum err serve_options_parse(struct serve_options *o, uint32_t groups, int argc, char **argv, const char **rest,
                             uint32_t rest_max, uint32_t *rest_count, struct why *why)
{
    *rest_count = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-' && argv[i][1]) {
            enum err e = parse_dashed(o, groups, argc, argv, &i, why);
            if (e)
                return e;
        } else if (*rest_count < rest_max) {
            rest[(*rest_count)++] = argv[i];
        } else {
            return because(why, ERR_INVALID, "\"%.60s\" is one word too many", argv[i]);
        }
    }
    return OK;
}

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t length = strlen(text);
    while (length && isspace((unsigned char)text[length - 1]))
        text[--length] = 0;
    return text;
}

enum err serve_options_read_file(struct serve_options *o, uint32_t groups, const char *path, struct why *why)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return because_errno(why, ERR_IO, "could not read the configuration \"%.200s\"", path);
    enum err e = OK;
    char line[OPTION_TEXT_BYTES + 128];
    for (uint32_t number = 1; !e && fgets(line, sizeof line, file); number++) {
        bool cut = strlen(line) == sizeof line - 1 && line[sizeof line - 2] != '\n';
        char *text = trim(line);
        if (!cut && (!*text || *text == '#'))
            continue;
        char *equals = strchr(text, '=');
        struct why what;
        if (cut) {
            e = because(&what, ERR_INVALID, "the line is longer than %zu bytes", sizeof line - 2);
        } else if (equals) {
            *equals = 0;
            e = set_of_groups(o, groups, trim(text), trim(equals + 1), &what);
        } else {
            e = because(&what, ERR_INVALID, "\"%.60s\" is no line of the form name = value", text);
        }
        if (e)
            because(why, e, "%.200s:%u: %.250s", path, number, what.text);
    }
    if (!e && ferror(file))
        e = because_errno(why, ERR_IO, "could not read the configuration \"%.200s\"", path);
    fclose(file);
    return e;
}

void serve_options_print_help(uint32_t groups)
{
    printf("  --%-18s %s\n", "config FILE", "reads \"name = value\" lines; what follows on the command line wins");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (!(options[i].groups & groups))
            continue;
        char left[64];
        static const char *const value[] = {
            [TEXT] = " S", [LIST] = " S", [COUNT] = " N", [BYTES] = " SIZE", [FLAG] = ""};
        snprintf(left, sizeof left, "%s%s", options[i].name, value[options[i].kind]);
        printf("  --%-18s %s", left, options[i].help);
        if (*options[i].fallback)
            printf(" (%s)", options[i].fallback);
        printf("\n");
    }
}
