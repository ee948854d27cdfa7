/*
 * pretokenizer: see pretokenizer.h. The patterns stand as in the models' tokenizer.json, with two liberties: \s and \S
 * mean the Unicode property White_Space (PCRE2's own \s takes U+180E too, which the field does not), and a pattern that
 * would try every start within a run of blanks says so itself (see deepseek_llm).
 *
 * Which name stands for which patterns: the table of the GGUF converter,
 * https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf_update.py
 */
#include "model/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "model/utf8.h"

enum {
    MAX_PATTERNS = 6,
    INVALID_BYTE_STAND_IN = 0x1A,
    BEYOND_UNICODE = 0x110000,
};

/* Pieces that several authors share. */
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define BLANKS "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2 PRETOKENIZER_BYTE_LEVEL
#define LLAMA3(digits) CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" BLANKS
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(tail) "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" tail "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" tail

struct pattern_set {
    const char *patterns[MAX_PATTERNS]; /* NULL after the last */
    bool keeps_whole_words, adds_bos;
    const char *published[MAX_PATTERNS]; /* what tokenizer.json has where it says the same in another way; else empty */
};

static const struct pattern_set gpt2 = {.patterns = {GPT2}};
static const struct pattern_set single_digits = {.patterns = {"\\p{N}", GPT2}};
static const struct pattern_set qwen2 = {.patterns = {LLAMA3("\\p{N}")}};
static const struct pattern_set digit_triples = {.patterns = {LLAMA3("\\p{N}{1,3}")}};
static const struct pattern_set llama3 = {
    .patterns = {LLAMA3("\\p{N}{1,3}")},
    .keeps_whole_words = true,
    .adds_bos = true,
};
static const struct pattern_set qwen35 = {
    .patterns = {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}"
                             "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" BLANKS},
};
static const struct pattern_set gpt4o = {
    .patterns = {CASED(CONTRACTION "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" BLANKS},
};
static const struct pattern_set tekken = {
    .patterns = {CASED("") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" BLANKS},
    .keeps_whole_words = true,
    .adds_bos = true,
};
/* The authors cut numbers off a second time. No token has a digit beside something else, so nothing is merged across that cut. */
static const struct pattern_set falcon = {
    .patterns = {PRETOKENIZER_PUNCTUATION, GPT2, "[0-9][0-9][0-9]"},
    .published = {PRETOKENIZER_PUNCTUATION, GPT2, "\\p{N}+", "[0-9][0-9][0-9]"},
};
static const struct pattern_set default_set = {
    .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"},
};
/* The cased letters of Unicode 11 without Armenian small ones. */
#define DEEPSEEK_LETTERS                                                                                     \
    "\\s?[A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"     \
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}"   \
    "\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}"          \
    "\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"        \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}"        \
    "\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}"                   \
    "\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}"                  \
    "\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}"        \
    "\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}" \
    "\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}"         \
    "\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}" \
    "\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}"        \
    "\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}"        \
    "\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}"                   \
    "\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}]+"
#define DEEPSEEK_PUNCTUATION "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+"
#define DEEPSEEK_IDEOGRAPHS "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"
static const struct pattern_set deepseek_llm = {
    .patterns =
        {"[\\r\\n]", DEEPSEEK_LETTERS, DEEPSEEK_PUNCTUATION,
         /* the authors' \s+$: only a run's first blank begins a match; without saying so a run costs its square */
         "(?<!\\s)\\s++$", DEEPSEEK_IDEOGRAPHS, "\\p{N}+"},
    /* digits one by one, which no token holds two of */
    .published = {"[\\r\\n]", DEEPSEEK_LETTERS, DEEPSEEK_PUNCTUATION, "\\s+$", DEEPSEEK_IDEOGRAPHS, "\\p{N}"},
};
static const struct pattern_set deepseek_coder = {
    .patterns =
        {
            "[\\r\\n]",
            "\\s?\\p{L}+",
            "\\s?\\p{P}+",
            DEEPSEEK_IDEOGRAPHS,
            "\\p{N}",
        },
};
static const struct pattern_set deepseek_v3 = {
    .patterns =
        {
            "\\p{N}{1,3}",
            "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
            "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" BLANKS,
        },
};

static const struct {
    const char *name;
    const struct pattern_set *set;
} families[] = {
    {"default", &default_set},
    {"gpt-2", &gpt2},
    {"phi-2", &gpt2},
    {"mpt", &gpt2},
    {"olmo", &gpt2},
    {"jais", &gpt2},
    {"trillion", &gpt2},
    {"gigachat", &gpt2},
    {"mellum", &gpt2},
    {"exaone4", &gpt2},
    {"modern-bert", &gpt2},
    {"granite-docling", &gpt2},
    {"smollm", &single_digits},
    {"starcoder", &single_digits},
    {"refact", &single_digits},
    {"command-r", &single_digits},
    {"codeshell", &single_digits},
    {"exaone", &single_digits},
    {"minerva-7b", &single_digits},
    {"llama-bpe", &llama3},
    {"llama3", &llama3},
    {"llama-v3", &llama3},
    {"falcon3", &llama3},
    {"falcon-h1", &llama3},
    {"pixtral", &llama3},
    {"midm-2.0", &llama3},
    {"lfm2", &llama3},
    {"dbrx", &digit_triples},
    {"smaug-bpe", &digit_triples},
    {"glm4", &digit_triples},
    {"chatglm-bpe", &digit_triples},
    {"qwen2", &qwen2},
    {"stablelm2", &qwen2},
    {"deepseek-r1-qwen", &qwen2},
    {"hunyuan", &qwen2},
    {"megrez", &qwen2},
    {"solar-open", &qwen2},
    {"grok-2", &qwen2},
    {"qwen35", &qwen35},
    {"gpt-4o", &gpt4o},
    {"llama4", &gpt4o},
    {"minimax-m2", &gpt4o},
    {"tekken", &tekken},
    {"falcon", &falcon},
    {"deepseek-llm", &deepseek_llm},
    {"deepseek-coder", &deepseek_coder},
    {"deepseek-v3", &deepseek_v3},
    {"hunyuan-dense", &deepseek_v3},
};

struct pretokenizer {
    const struct pattern_set *set;
    pcre2_code *codes[MAX_PATTERNS]; /* NULL after the last */
};

void word_list_fini(struct word_list *words)
{
    free(words->ends);
    *words = (struct word_list){0};
}

static bool word_list_push(struct word_list *words, size_t end)
{
    if (words->count == words->capacity) {
        size_t capacity = words->capacity ? 2 * words->capacity : 64;
        uint32_t *ends = realloc(words->ends, capacity * sizeof *ends);
        if (!ends)
            return false;
        words->ends = ends;
        words->capacity = capacity;
    }
    words->ends[words->count++] = (uint32_t)end;
    return true;
}

static const struct pattern_set *find_family(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strlen(families[i].name) == length && memcmp(families[i].name, name, length) == 0)
            return families[i].set;
    return NULL;
}

/* The character at *p, which moves behind it: as it stands, or as \r, \n or \x{...} says. Any other escape is a character of its own. */
static uint32_t next_character(const char **p)
{
    const char *at = *p;
    if (at[0] == '\\' && at[1] == 'x' && at[2] == '{') {
        char *end;
        unsigned long code = strtoul(at + 3, &end, 16);
        if (*end == '}' && end > at + 3) {
            *p = end + 1;
            return (uint32_t)code;
        }
    }
    if (at[0] == '\\' && at[1]) {
        *p += 2;
        return at[1] == 'r' ? '\r' : at[1] == 'n' ? '\n' : BEYOND_UNICODE + (uint8_t)at[1];
    }
    struct utf8_step step = utf8_step(at, strnlen(at, 4));
    *p += step.bytes;
    return step.code;
}

static bool same_pattern(const char *a, const char *b)
{
    while (*a && *b)
        if (next_character(&a) != next_character(&b))
            return false;
    return !*a && !*b;
}

static bool has_patterns(const struct pattern_set *set, const char *const *patterns, size_t count)
{
    const char *const *spelt = set->published[0] ? set->published : set->patterns;
    size_t i = 0;
    for (; i < MAX_PATTERNS && spelt[i]; i++)
        if (i >= count || !same_pattern(spelt[i], patterns[i]))
            return false;
    return i == count;
}

const char *pretokenizer_name(const char *const *patterns, size_t count, bool keeps_whole_words)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (families[i].set->keeps_whole_words == keeps_whole_words && has_patterns(families[i].set, patterns, count))
            return families[i].name;
    return NULL;
}

/* Compiles one pattern; \s and \S become the White_Space property, which may stand in a class as well as alone. */
static pcre2_code *compile(const char *pattern)
{
    static const char property[] = "\\p{wspace}";
    char *text = malloc(strlen(pattern) / 2 * (sizeof property - 1) + strlen(pattern) + 1);
    if (!text)
        return NULL;
    char *end = text;
    for (const char *p = pattern; *p; p++) {
        if (p[0] == '\\' && (p[1] == 's' || p[1] == 'S')) {
            memcpy(end, property, sizeof property - 1);
            end[1] = p[1] == 's' ? 'p' : 'P';
            end += sizeof property - 1;
            p++;
        } else {
            *end++ = *p;
            if (*p == '\\')
                *end++ = *++p;
        }
    }
    int code;
    size_t where;
    pcre2_code *compiled =
        pcre2_compile((PCRE2_SPTR)text, (size_t)(end - text),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY | PCRE2_NO_UTF_CHECK, &code, &where, NULL);
    free(text);
    must(compiled || code == PCRE2_ERROR_HEAP_FAILED); /* the patterns are ours */
    if (compiled)
        pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); /* without a JIT the interpreter matches the same, slower */
    return compiled;
}

enum err pretokenizer_open(struct pretokenizer **out, const char *name, size_t name_length, struct why *why)
{
    *out = NULL;
    const struct pattern_set *set = find_family(name, name_length);
    if (!set)
        return because(why, ERR_UNSUPPORTED, "the pre-tokenizer \"%.*s\" is not known, so that text would be cut wrong",
                       (int)(name_length < 64 ? name_length : 64), name);
    struct pretokenizer *p = calloc(1, sizeof *p);
    if (!p)
        return because(why, ERR_NOMEM, "no memory for the pre-tokenizer");
    p->set = set;
    for (size_t i = 0; i < MAX_PATTERNS && set->patterns[i]; i++) {
        p->codes[i] = compile(set->patterns[i]);
        if (!p->codes[i]) {
            pretokenizer_close(p);
            return because(why, ERR_NOMEM, "no memory for the pre-tokenizer's patterns");
        }
    }
    *out = p;
    return OK;
}

void pretokenizer_close(struct pretokenizer *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < MAX_PATTERNS; i++)
        pcre2_code_free(p->codes[i]);
    free(p);
}

bool pretokenizer_keeps_whole_words(const struct pretokenizer *p)
{
    return p->set->keeps_whole_words;
}

bool pretokenizer_adds_bos(const struct pretokenizer *p)
{
    return p->set->adds_bos;
}

/* What one call of split owns. */
struct splitter {
    pcre2_match_context *context;
    pcre2_match_data *match;
    char *valid; /* the text with a stand-in for each invalid byte, or NULL when all is valid */
    struct word_list other;
};

/* Offsets stay: each byte that is no UTF-8 is replaced by one that is. */
static bool make_valid(struct splitter *s, const char *text, size_t length)
{
    for (size_t at = 0; at < length;) {
        struct utf8_step step = utf8_step(text + at, length - at);
        if (step.kind != UTF8_GOOD) {
            if (!s->valid) {
                s->valid = malloc(length);
                if (!s->valid)
                    return false;
                memcpy(s->valid, text, length);
            }
            memset(s->valid + at, INVALID_BYTE_STAND_IN, step.bytes);
        }
        at += step.bytes;
    }
    return true;
}

/* Cuts the word text[0, length), which begins at `base` of the whole text. */
static enum err cut_word(struct splitter *s, const pcre2_code *code, const char *text, size_t base, size_t length,
                         struct word_list *out)
{
    size_t done = 0;
    size_t from = 0;
    while (done < length) {
        int found = pcre2_match(code, (PCRE2_SPTR)text, length, from, PCRE2_NO_UTF_CHECK, s->match, s->context);
        if (found == PCRE2_ERROR_JIT_STACKLIMIT)
            found = pcre2_match(code, (PCRE2_SPTR)text, length, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->match,
                                s->context);
        if (found == PCRE2_ERROR_NOMATCH)
            break;
        if (found < 0)
            return found == PCRE2_ERROR_NOMEMORY ? ERR_NOMEM : ERR_UNSUPPORTED;
        const size_t *at = pcre2_get_ovector_pointer(s->match);
        must(at[0] < at[1] && at[1] <= length); /* no pattern of ours matches nothing */
        if (at[0] > done && !word_list_push(out, base + at[0]))
            return ERR_NOMEM;
        if (!word_list_push(out, base + at[1]))
            return ERR_NOMEM;
        done = from = at[1];
    }
    return done == length || word_list_push(out, base + length) ? OK : ERR_NOMEM;
}

/* One pattern over all words of `in`. */
static enum err cut_words(struct splitter *s, const pcre2_code *code, const char *text, const struct word_list *in,
                          struct word_list *out)
{
    size_t start = 0;
    out->count = 0;
    for (size_t i = 0; i < in->count; i++) {
        enum err err = cut_word(s, code, text + start, start, in->ends[i] - start, out);
        if (err != OK)
            return err;
        start = in->ends[i];
    }
    return OK;
}

enum err pretokenizer_split(const struct pretokenizer *p, const char *text, size_t length, struct word_list *words,
                            struct why *why)
{
    words->count = 0;
    if (length == 0)
        return OK;
    if (length >= UINT32_MAX)
        return because(why, ERR_INVALID, "a text of %zu bytes is too long to tokenize", length);
    struct splitter s = {.context = pcre2_match_context_create(NULL), .match = pcre2_match_data_create(1, NULL)};
    bool ready = s.context && s.match && make_valid(&s, text, length) && word_list_push(words, length);
    enum err err = ready ? OK : ERR_NOMEM;
    if (err == OK)
        pcre2_set_match_limit(s.context, UINT32_MAX); /* a long run of blanks is no reason to give up */
    for (size_t i = 0; err == OK && i < MAX_PATTERNS && p->codes[i]; i++) {
        err = cut_words(&s, p->codes[i], s.valid ? s.valid : text, words, &s.other);
        struct word_list swap = *words;
        *words = s.other;
        s.other = swap;
    }
    word_list_fini(&s.other);
    free(s.valid);
    pcre2_match_data_free(s.match);
    pcre2_match_context_free(s.context);
    if (err == ERR_NOMEM)
        return because(why, err, "no memory to cut a text of %zu bytes into words", length);
    if (err != OK)
        return because(why, err, "a text of %zu bytes could not be cut into words: its pattern is too deep", length);
    return OK;
}
