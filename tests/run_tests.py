#!/usr/bin/env python3
"""Runs the tests and counts them; the last line is 'N passed, N failed', perhaps with ', N skipped'.

Two kinds of tests:

- programs: the cmocka programs of tests/unit and tests/kernels, named with --programs. What cmocka reports is counted;
  a program that dies, hangs or reports nothing counts as one failure more.
- suites: every executable file tests/*/run_* . It prints what it likes, ends with 'N passed, N failed' (', N skipped'
  may follow) and exits 0 when nothing failed. It finds the tree in QUIRE_ROOT and the programs in QUIRE_BUILD, and runs
  its long form when QUIRE_LONG is set.

The output of what passed is kept to one line, of what failed it is shown whole. The exit status is 1 when anything
failed or nothing was run.
"""
import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COUNTS = re.compile(rb"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\s*$")
CMOCKA_COUNT = re.compile(rb"^\[  (PASSED|FAILED|SKIPPED) *\] (?:.*: )?(\d+) test\(s\)")
CMOCKA_STARTED = re.compile(rb"^\[=+\] .*[Rr]unning (\d+) test\(s\)")


class Result:
    """Counts of one program or suite, and why it is broken although its counts may look good."""

    def __init__(self, passed=0, failed=0, skipped=0, broken=None):
        self.passed, self.failed, self.skipped = passed, failed, skipped
        if broken:
            self.failed = max(self.failed, 1)
        self.broken = broken


def run(command, limit_s, environment):
    """Runs a command in a process group of its own: (output, exit status or None when it took too long)."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            status = None
        # Also after a good end: whatever it left running must not disturb the next.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        output.seek(0)
        return output.read(), status


def ending(status, limit_s):
    """Says how a process ended, or None when it ended by itself with a status of its choice."""
    if status is None:
        return f"it took longer than {limit_s} s"
    if status < 0:
        return f"it was killed by {signal.Signals(-status).name}"
    return None


def read_program(output, status, limit_s):
    """Counts what a cmocka program reported; it may run several groups of tests."""
    counts = {b"PASSED": 0, b"FAILED": 0, b"SKIPPED": 0}
    started = 0
    for line in output.splitlines():
        if match := CMOCKA_COUNT.match(line):
            counts[match[1]] += int(match[2])
        elif match := CMOCKA_STARTED.match(line):
            started += int(match[1])
    passed, failed, skipped = counts[b"PASSED"], counts[b"FAILED"], counts[b"SKIPPED"]

    broken = ending(status, limit_s)
    if not broken and status != 0 and failed == 0:
        broken = f"it ended with status {status} and reports no failed test"
    if not broken and passed + failed + skipped < max(started, 1):
        broken = f"it reports {passed + failed + skipped} of {max(started, 1)} tests"
    if broken and not passed + failed + skipped:
        # It died before its summary: what came before stands in single lines, and the one it died in counts as failed.
        marks = (b"\n[       OK ]", b"\n[  FAILED  ]", b"\n[  SKIPPED ]")
        passed, failed, skipped = (output.count(mark) for mark in marks)
        failed += 1
    return Result(passed, failed, skipped, broken)


def read_suite(output, status, limit_s):
    """Takes the closing line of a suite."""
    lines = output.strip().splitlines()
    match = COUNTS.match(lines[-1]) if lines else None
    broken = ending(status, limit_s)
    if not match:
        return Result(broken=broken or "its last line is not 'N passed, N failed'")
    passed, failed, skipped = (int(count or 0) for count in match.groups())
    if not broken and status != 0 and failed == 0:
        broken = f"it ended with status {status} and counts no failed test"
    if not broken and passed + failed + skipped == 0:
        broken = "it ran no test"
    return Result(passed, failed, skipped, broken)


def shown(counts):
    text = f"{counts.passed} passed, {counts.failed} failed"
    return text + (f", {counts.skipped} skipped" if counts.skipped else "")


def report(name, result, output, seconds):
    """One line for what passed; the whole output before it for what failed."""
    if result.failed:
        print(f"---- output of {name}")
        sys.stdout.flush()
        sys.stdout.buffer.write(output if output.endswith(b"\n") or not output else output + b"\n")
        sys.stdout.buffer.flush()
        print(f"---- end of {name}")
    mark = "FAIL" if result.failed else "ok"
    why = f": {result.broken}" if result.broken else ""
    print(f"{mark:4} {name:44} {shown(result)} ({seconds:.1f} s){why}", flush=True)


def short(program):
    """tests/unit/test_x of /somewhere/build/release/tests/unit/test_x."""
    return program[program.rfind("tests/") :] if "tests/" in program else program


def suites():
    found = sorted(path for path in ROOT.glob("tests/*/run_*") if path.is_file() and os.access(path, os.X_OK))
    return [path.relative_to(ROOT) for path in found]


def main():
    parser = argparse.ArgumentParser(description="Runs the tests and counts them.")
    parser.add_argument("--build", default="build", help="folder of quire and quire-worker")
    parser.add_argument("--programs", nargs="*", default=[], help="cmocka programs")
    parser.add_argument("--only-programs", action="store_true", help="no suites")
    parser.add_argument("--only", default="", help="only what has this in its name")
    parser.add_argument("--program-limit", type=float, default=120, help="seconds a program may take")
    parser.add_argument("--suite-limit", type=float, default=900, help="seconds a suite may take")
    args = parser.parse_args()

    long_form = bool(os.environ.get("QUIRE_LONG"))
    environment = dict(
        os.environ,
        QUIRE_ROOT=str(ROOT),
        QUIRE_BUILD=str((ROOT / args.build).resolve()),
        # A sanitizer that found something must not look like a passed test.
        ASAN_OPTIONS="abort_on_error=1:detect_stack_use_after_return=1",
        UBSAN_OPTIONS="print_stacktrace=1:abort_on_error=1",
        TSAN_OPTIONS=f"halt_on_error=1:abort_on_error=1:suppressions={ROOT / 'tests/support/thread_sanitizer.supp'}",
    )
    environment.pop("MAKEFLAGS", None)

    limit_factor = 10 if long_form else 1
    jobs = [(short(name), ROOT / name, args.program_limit, read_program) for name in args.programs]
    if not args.only_programs:
        jobs += [(str(suite), ROOT / suite, args.suite_limit, read_suite) for suite in suites()]

    total = Result()
    for name, command, limit_s, read in jobs:
        if args.only not in name:
            continue
        limit_s *= limit_factor
        began = time.monotonic()
        try:
            output, status = run([str(command.resolve())], limit_s, environment)
            result = read(output, status, limit_s)
        except OSError as error:
            output, result = b"", Result(broken=f"it could not be started: {error}")
        report(name, result, output, time.monotonic() - began)
        total.passed += result.passed
        total.failed += result.failed
        total.skipped += result.skipped

    if total.passed + total.failed == 0:
        print("no test was run", file=sys.stderr, flush=True)
    print(shown(total), flush=True)
    return 0 if total.failed == 0 and total.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
