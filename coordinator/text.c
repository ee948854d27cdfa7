/* text: see text.h. */
#include "coordinator/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "model/utf8.h"

void text_fini(struct text *t)
{
    free(t->at);
    *t = (struct text){0};
}

void text_clear(struct text *t)
{
    t->length = 0;
    t->failed = false;
}

bool text_reserve(struct text *t, size_t more)
{
    uint64_t need;
    if (t->failed || !checked_add(t->length, more, &need)) {
        t->failed = true;
        return false;
    }
    if (need <= t->capacity)
        return true;
    uint64_t capacity = t->capacity < 256 ? 256 : t->capacity;
    while (capacity < need)
        if (!checked_mul(capacity, 2, &capacity)) {
            t->failed = true;
            return false;
        }
    char *grown = realloc(t->at, (size_t)capacity);
    if (!grown) {
        t->failed = true;
        return false;
    }
    t->at = grown;
    t->capacity = (size_t)capacity;
    return true;
}

void text_add(struct text *t, const void *bytes, size_t length)
{
    if (length == 0 || !text_reserve(t, length))
        return;
    memcpy(t->at + t->length, bytes, length);
    t->length += length;
}

void text_add_string(struct text *t, const char *terminated)
{
    text_add(t, terminated, strlen(terminated));
}

void text_add_u64(struct text *t, uint64_t value)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    text_add(t, digits + at, sizeof digits - at);
}

void text_add_i64(struct text *t, int64_t value)
{
    if (value < 0)
        text_add(t, "-", 1);
    text_add_u64(t, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

/*
 * Writes "d.ddde+xx", as printf makes it, in the way JSON reads best. The decimal point may be any bytes: locales
 * differ.
 */
static void add_scientific(struct text *t, const char *printed)
{
    char digits[24] = "0";
    size_t count = 0;
    const char *at = printed;
    if (*at == '-') {
        text_add(t, "-", 1);
        at++;
    }
    for (; *at && *at != 'e'; at++)
        if (*at >= '0' && *at <= '9' && count < sizeof digits)
            digits[count++] = *at;
    int exponent = *at == 'e' ? (int)strtol(at + 1, NULL, 10) : 0;
    while (count > 1 && digits[count - 1] == '0')
        count--;

    if (exponent < -5 || exponent > 15) {
        text_add(t, digits, 1);
        if (count > 1) {
            text_add(t, ".", 1);
            text_add(t, digits + 1, count - 1);
        }
        text_add(t, "e", 1);
        text_add_i64(t, exponent);
    } else if (exponent < 0) {
        text_add(t, "0.0000", 2 + (size_t)(-exponent - 1));
        text_add(t, digits, count);
    } else {
        size_t whole = (size_t)exponent + 1;
        text_add(t, digits, count < whole ? count : whole);
        for (size_t i = count; i < whole; i++)
            text_add(t, "0", 1);
        if (count > whole) {
            text_add(t, ".", 1);
            text_add(t, digits + whole, count - whole);
        }
    }
}

/* Both write and read the number under the same locale, so the comparison holds under each. */
void text_add_f64(struct text *t, double value)
{
    char printed[64];
    if (!isfinite(value)) {
        text_add_string(t, "null");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(printed, sizeof printed, "%.*e", digits - 1, value);
        if (strtod(printed, NULL) == value)
            break;
    }
    add_scientific(t, printed);
}

void text_add_f32(struct text *t, float value)
{
    char printed[64];
    if (!isfinite(value)) {
        text_add_string(t, "null");
        return;
    }
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(printed, sizeof printed, "%.*e", digits - 1, (double)value);
        if (strtof(printed, NULL) == value)
            break;
    }
    add_scientific(t, printed);
}

/* Bytes that stand for themselves in a JSON string. */
static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static void add_escape(struct text *t, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    /* clang-format off: a table */
    switch (c) {
    case '"':
        text_add(t, "\\\"", 2);
        return;
    case '\\':
        text_add(t, "\\\\", 2);
        return;
    case '\n':
        text_add(t, "\\n", 2);
        return;
    case '\r':
        text_add(t, "\\r", 2);
        return;
    case '\t':
        text_add(t, "\\t", 2);
        return;
    default:
        text_add(t, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
        return;
    }
    /* clang-format on */
}

void text_json_string_part(struct text *t, const char *bytes, size_t length)
{
    size_t at = 0;
    while (at < length) {
        size_t run = at;
        while (run < length && is_plain((unsigned char)bytes[run]))
            run++;
        text_add(t, bytes + at, run - at);
        at = run;
        if (at == length)
            return;
        if ((unsigned char)bytes[at] < 0x80) {
            add_escape(t, (unsigned char)bytes[at]);
            at++;
            continue;
        }
        struct utf8_step step = utf8_step(bytes + at, length - at);
        if (step.kind == UTF8_GOOD)
            text_add(t, bytes + at, step.bytes);
        else
            text_add(t, "\xEF\xBF\xBD", 3);
        at += step.bytes;
    }
}

void text_json_string(struct text *t, const char *bytes, size_t length)
{
    text_add(t, "\"", 1);
    text_json_string_part(t, bytes, length);
    text_add(t, "\"", 1);
}

void text_json_string_z(struct text *t, const char *terminated)
{
    text_json_string(t, terminated, strlen(terminated));
}

size_t utf8_count(const char *bytes, size_t length)
{
    size_t count = 0;
    for (size_t i = 0; i < length; i++)
        count += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    return count;
}
