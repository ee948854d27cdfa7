#!/usr/bin/env python3
"""Checks the rules of this tree that no compiler checks. One line for each breach; exit status 1 when there is any.

The rules, each a function below that carries its sentence. A source file that has no test twin stands with its reason
in tests/unit/no_twin.txt, one `pattern: reason` a line.
"""
import fnmatch
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent

# Who may include whom. Tests, benchmarks and tools may include everything.
ARROWS = {
    "base": {"base"},
    "shm": {"base", "shm"},
    "proto": {"base", "proto"},
    "model": {"base", "model"},
    "worker": {"base", "shm", "proto", "model", "worker"},
    "coordinator": {"base", "shm", "proto", "model", "coordinator"},
}
GENERATED = {"web_assets.h": "coordinator"}
VAGUE_NAMES = {"util", "utils", "common", "misc", "helper", "helpers"}
NEEDS_NO_README = {".ci", ".github"}

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')


def tracked_files():
    """What git knows or would take: build results and models stay out."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    return sorted(PurePosixPath(name) for name in names if (ROOT / name).is_file())


def lines_of(path):
    return (ROOT / path).read_text(encoding="utf-8").splitlines()


def is_c(path):
    return path.suffix in (".c", ".h")


def include_arrows_go_one_way(files):
    """base <- shm, proto, model <- worker, coordinator; *_internal.h stays in its folder and its tests."""
    for path in filter(is_c, files):
        folder = path.parts[0]
        for number, line in enumerate(lines_of(path), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            included = PurePosixPath(match[1])
            where = f"{path}:{number}"
            home = included.parts[0] if len(included.parts) > 1 else GENERATED.get(included.name)
            if home is None:
                yield f'{where}: "{included}" is not named from the root of the tree ("folder/file.h")'
            elif folder in ARROWS and home not in ARROWS[folder]:
                yield f'{where}: {folder}/ must not include "{included}"'
            elif included.stem.endswith("_internal") and folder in ARROWS and included.parent != path.parent:
                yield f'{where}: "{included}" is for files of {included.parent}/ only'


def every_memory_order_has_its_reason(files):
    """A comment on the line of a memory order, or right above its statement, says what it pairs with."""
    for path in filter(is_c, files):
        if path.parts[0] == "tests":
            continue
        lines = lines_of(path)
        for number, line in enumerate(lines, 1):
            if "memory_order_" not in line or line.lstrip().startswith(("*", "/*", "//")):
                continue
            first = number - 1  # of the statement: back over lines that do not end one
            while first > 0 and re.search(r"[,(|&=+\-?:]$", lines[first - 1].rstrip()):
                first -= 1
            last = number - 1
            while last + 1 < len(lines) and not re.search(r"[;{}]\s*(/\*.*|//.*)?$", lines[last]):
                last += 1
            around = lines[first : last + 1] + (lines[first - 1 : first] if first > 0 else [])
            if not any("/*" in text or "*/" in text or "//" in text for text in around):
                yield f"{path}:{number}: this memory order lacks the comment that says what it pairs with"


def names_say_what_a_file_holds(files):
    """No file is named util, common, misc or helpers."""
    for path in files:
        if path.stem in VAGUE_NAMES:
            yield f"{path}: the name does not say what it holds"


def every_folder_states_its_rules(files):
    """Each folder of the tree has a README.md."""
    folders = {path.parts[0] for path in files if len(path.parts) > 1} - NEEDS_NO_README
    for folder in sorted(folders):
        if not (ROOT / folder / "README.md").is_file():
            yield f"{folder}/: lacks a README.md with its rules"


def exemptions():
    path = ROOT / "tests/unit/no_twin.txt"
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern, _, reason = line.partition(":")
            yield pattern.strip(), reason.strip()


def every_source_has_its_test_twin(files):
    """folder/file.c is tested by tests/unit/test_file.c or tests/kernels/test_file.c."""
    exempt = list(exemptions())
    for pattern, reason in exempt:
        if not reason:
            yield f"tests/unit/no_twin.txt: {pattern} is exempt without a reason"
        if not any(fnmatch.fnmatch(str(path), pattern) for path in files):
            yield f"tests/unit/no_twin.txt: {pattern} names no file"
    known = set(map(str, files))
    for path in files:
        if path.suffix != ".c" or path.parts[0] not in ARROWS:
            continue
        if any(fnmatch.fnmatch(str(path), pattern) for pattern, _ in exempt):
            continue
        if not any(f"tests/{kind}/test_{path.stem}.c" in known for kind in ("unit", "kernels")):
            yield f"{path}: lacks its test tests/unit/test_{path.stem}.c"


def every_file_opens_with_what_it_is(files):
    """The header of a module opens with a comment; a C file does unless its header says it."""
    for path in filter(is_c, files):
        first = next((line for line in lines_of(path) if line.strip()), "")
        if first.startswith("/*") or first.startswith("//"):
            continue
        if path.suffix == ".c" and (ROOT / path.with_suffix(".h")).is_file():
            continue
        yield f"{path}: opens without a comment that says what it is"


def messages_say_what_was_tried(files):
    """Nobody reads 'failed to': a message says 'could not open "x": why'."""
    for path in filter(is_c, files):
        if path.parts[0] not in ARROWS:
            continue
        for number, line in enumerate(lines_of(path), 1):
            if any("failed to" in text.lower() for text in STRING.findall(line)):
                yield f"{path}:{number}: this message says 'failed to': say what was tried and why it could not be done"


def tests_wait_for_events(files):
    """A test waits for an event with a deadline; it does not sleep."""
    for path in filter(is_c, files):
        if path.parts[0] != "tests":
            continue
        for number, line in enumerate(lines_of(path), 1):
            if re.search(r"\b(sleep|usleep)\s*\(", line):
                yield f"{path}:{number}: a test that sleeps is slow on one machine and wrong on another"


RULES = [
    include_arrows_go_one_way,
    every_memory_order_has_its_reason,
    names_say_what_a_file_holds,
    every_folder_states_its_rules,
    every_source_has_its_test_twin,
    every_file_opens_with_what_it_is,
    messages_say_what_was_tried,
    tests_wait_for_events,
]


def main():
    files = tracked_files()
    breaches = [breach for rule in RULES for breach in rule(files)]
    print("\n".join(breaches) if breaches else f"{len(RULES)} rules hold in {len(files)} files")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
