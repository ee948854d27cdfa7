/* unicode_fold: see unicode_fold.h. Binary searches in sorted tables. */
#include "model/unicode_fold.h"

#include "model/unicode_tables.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

static bool is_in(const struct code_range *ranges, size_t count, uint32_t code)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ranges[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && ranges[low].first <= code;
}

bool unicode_is_punctuation(uint32_t code)
{
    return is_in(punctuation, COUNT(punctuation), code);
}

bool unicode_is_control(uint32_t code)
{
    return is_in(controls, COUNT(controls), code);
}

bool unicode_is_blank(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0d) || code == 0x20 || code == 0x85 || code == 0xa0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f ||
           code == 0x3000;
}

/* Syllables are numbered (lead * 21 + vowel) * 28 + tail. */
static size_t fold_hangul(uint32_t code, uint32_t out[UNICODE_FOLD_MOST])
{
    enum { LEADS = 0x1100, VOWELS = 0x1161, TAILS = 0x11a7, VOWEL_COUNT = 21, TAIL_COUNT = 28, FIRST = 0xac00 };
    uint32_t tail = (code - FIRST) % TAIL_COUNT, pair = (code - FIRST) / TAIL_COUNT;
    out[0] = LEADS + pair / VOWEL_COUNT;
    out[1] = VOWELS + pair % VOWEL_COUNT;
    out[2] = TAILS + tail;
    return tail ? 3 : 2;
}

static size_t fold_by_list(uint32_t code, uint32_t out[UNICODE_FOLD_MOST])
{
    size_t count = 0;
    for (size_t i = 0; i < COUNT(fold_lists); i++)
        if (fold_lists[i].from == code)
            for (; count < UNICODE_FOLD_MOST && fold_lists[i].to[count]; count++)
                out[count] = fold_lists[i].to[count];
    return count;
}

static size_t fold_by_run(uint32_t code, uint32_t out[UNICODE_FOLD_MOST])
{
    size_t low = 0, high = COUNT(fold_runs);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (fold_runs[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == COUNT(fold_runs) || fold_runs[low].first > code || (code - fold_runs[low].first) % fold_runs[low].step)
        return 0;
    out[0] = (uint32_t)((int32_t)code + fold_runs[low].offset);
    return 1;
}

size_t unicode_fold(uint32_t code, uint32_t out[UNICODE_FOLD_MOST])
{
    if (code < 0x80) {
        out[0] = code >= 'A' && code <= 'Z' ? code + 'a' - 'A' : code;
        return 1;
    }
    if (code >= 0xac00 && code <= 0xd7a3)
        return fold_hangul(code, out);
    if (is_in(marks, COUNT(marks), code))
        return 0;
    size_t count = fold_by_run(code, out);
    if (count == 0)
        count = fold_by_list(code, out);
    if (count == 0)
        out[count++] = code;
    return count;
}
