#!/usr/bin/env python3
"""Writes model/unicode_tables.h from Python's own Unicode data: tools/make_unicode_tables.py > model/unicode_tables.h

Runs of code points whose letters fold alike, and ranges of the classes that WordPiece asks for. Whoever runs it with a newer
Python gets the characters of a newer Unicode.
"""
import sys
import unicodedata

LIMIT = 0x110000
HANGUL = range(0xAC00, 0xD7A4)  # is decomposed by arithmetic
SURROGATES = range(0xD800, 0xE000)


def fold(code):
    """What is left of a character when it is decomposed, its marks are taken away and the rest is made small."""
    letters = [c for c in unicodedata.normalize("NFD", chr(code)) if unicodedata.category(c) != "Mn"]
    return [ord(small) for c in letters for small in c.lower() if unicodedata.category(small) != "Mn"]


def ranges(wanted):
    found = []
    for code in range(LIMIT):
        if code in SURROGATES or not wanted(code):
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def runs_and_lists():
    """[first, last, step, offset]: every step-th from first to last becomes itself + offset. And those that become several."""
    runs, lists = [], []
    for code in range(LIMIT):
        if code in SURROGATES or code in HANGUL or unicodedata.category(chr(code)) == "Mn":
            continue
        to = fold(code)
        if to == [code]:
            continue
        if len(to) != 1:
            lists.append((code, to))
            continue
        last = runs[-1] if runs else None
        if last and last[3] == to[0] - code and code - last[1] in (1, 2) and last[2] in (0, code - last[1]):
            last[2], last[1] = code - last[1], code
        else:
            runs.append([code, code, 0, to[0] - code])
    return [[a, b, max(step, 1), offset] for a, b, step, offset in runs], lists


def number(n):
    if isinstance(n, list):
        return "{" + ", ".join(number(m) for m in n) + "}"
    return f"{n:#x}" if n >= 10 else str(n)


def table(kind, name, rows):
    print(f"static const struct {kind} {name}[] = {{")
    line = "   "
    for row in rows:
        item = " {" + ", ".join(number(n) for n in row) + "},"
        if len(line) + len(item) > 118:
            print(line)
            line = "   "
        line += item
    print(line + "\n};\n")


def main():
    runs, lists = runs_and_lists()
    assert max(len(to) for _, to in lists) <= 4 and min(len(to) for _, to in lists) >= 1
    print(f"/* unicode_tables: written by tools/make_unicode_tables.py from Unicode {unicodedata.unidata_version}; for unicode_fold.c only. */")
    print("/* clang-format off */")
    print("#ifndef QUIRE_MODEL_UNICODE_TABLES_H\n#define QUIRE_MODEL_UNICODE_TABLES_H\n\n#include <stdint.h>\n")
    print("struct code_range {\n    uint32_t first, last;\n};\n")
    print("/* Every step-th from first to last becomes itself + offset. */\nstruct fold_run {\n    uint32_t first, last, step;\n    int32_t offset;\n};\n")
    print("struct fold_list {\n    uint32_t from, to[4]; /* 0 behind the last */\n};\n")
    table("fold_run", "fold_runs", runs)
    table("fold_list", "fold_lists", [[code, to] for code, to in lists])
    table("code_range", "marks", ranges(lambda c: unicodedata.category(chr(c)) == "Mn"))
    table("code_range", "punctuation", ranges(lambda c: unicodedata.category(chr(c))[0] == "P"))
    table("code_range", "controls", ranges(lambda c: unicodedata.category(chr(c)) in ("Cc", "Cf", "Co")))
    print("#endif")


sys.exit(main())
