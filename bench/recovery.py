#!/usr/bin/env python3
"""How long a session waits when something dies: a worker, the coordinator, and beside them the peer's only process.

    bench/recovery.py [--kv-memory 8G] [--times 40] [--only spare,none,coordinator,peer,peer-full] [--output FILE.md]

One session of a long prompt decodes. A process gets SIGKILL at a random moment, and what counts is the longest pause that its client hears
from there on, within its next 24 tokens. Workers are replaced by the coordinator; the coordinator and the
peer are started again at once by the same command. The client of quire picks its answer up by its id and Last-Event-ID; the client of
the peer has to send prompt and answer so far again, since nothing of the session is left there.
"""
import argparse
import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True

from engines import ROOT, processor
from peer import PACKAGE, Peer

READY_S = 300
SEED = 7
SMOLLM2_POSITION_BYTES = 30 * 2 * 3 * 64 * 2  # layers, keys and values, heads, width, f16: what the peer holds for a position
SILENCE_S = 60  # a session that says nothing for so long is given up


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(p / 100 * len(values)))]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(what, condition, patience_s=READY_S):
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {patience_s} s")
        time.sleep(0.002)
    return found


class Program:
    """A server that can be killed and started again by the same command."""

    def __init__(self, command, port, health):
        self.command, self.port, self.health = [str(word) for word in command], port, health
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as reply:
            return json.load(reply)

    def is_healthy(self):
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            return bool(self.get(self.health))

    def kill(self):
        self.process.kill()

    def __enter__(self):
        self.start()
        wait_until(f"{self.command[0]} is ready", self.is_healthy)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Session(threading.Thread):
    """One session that is picked up, or asked for again, for as long as it is watched; .heard are the times of its tokens."""

    def __init__(self, program):
        super().__init__(daemon=True)
        self.program, self.heard, self.over, self.problem = program, [time.monotonic()], False, None
        self.start()

    def run(self):
        while not self.over:
            connection = http.client.HTTPConnection("127.0.0.1", self.program.port, timeout=READY_S)
            try:
                self.ask(connection)
                reply = connection.getresponse()
                if reply.status == 200:
                    self.read(reply)
                elif reply.status != 503:
                    self.problem = f"{reply.status} {reply.read()!r}"
                    return
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.002)  # dead, or not there yet
            finally:
                connection.close()

    def read(self, reply):
        event_id = None
        for line in reply:
            if line.startswith(b"id:"):
                event_id = line[3:].strip().decode()
            elif line.startswith(b"data:") and self.take(line[5:].strip(), event_id):
                self.heard.append(time.monotonic())
            if self.over:
                return

    def silence_behind(self, moment):
        """The longest pause, in seconds from the moment on or from a token behind it, once tokens flow again: what a reader waits."""

        def flows():
            if self.problem:
                raise SystemExit(f"the session broke: {self.problem}")
            heard = list(self.heard)
            behind = [t for t in heard if t > moment]
            return len(behind) >= 24 and [moment, *behind]

        times = wait_until("the session goes on", flows, SILENCE_S)[:25]
        return max(after - before for before, after in zip(times, times[1:], strict=False))


class OurSession(Session):
    def __init__(self, program, prompt, tokens):
        self.body = {"model": "default", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
        self.id = self.last = None
        super().__init__(program)

    def ask(self, connection):
        if self.id is None:
            connection.request("POST", "/v1/completions", json.dumps(self.body), {"Content-Type": "application/json"})
        else:
            connection.request("GET", f"/v1/completions/{self.id}", headers={"Accept": "text/event-stream", "Last-Event-ID": self.last or "-1"})

    def take(self, data, event_id):
        if data == b"[DONE]":
            self.id = self.last = None  # it was all said: the same again
            return False
        event = json.loads(data)
        if "error" in event:
            raise SystemExit(f"the session broke: {event}")
        self.id, self.last = event["id"], event_id or self.last
        return bool(event["choices"])


class TheirSession(Session):
    def __init__(self, program, prompt, tokens):
        self.prompt, self.said, self.most = prompt, [], tokens
        super().__init__(program)

    def ask(self, connection):
        if len(self.said) >= self.most:
            self.said = []
        body = {"prompt": self.prompt + self.said, "n_predict": self.most - len(self.said), "temperature": 0, "ignore_eos": True,
                "stream": True, "return_tokens": True, "cache_prompt": True}  # fmt: skip
        connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})

    def take(self, data, event_id):
        event = json.loads(data)
        self.said += event.get("tokens") or []
        return bool(event.get("tokens"))


# ---- the rows


def quire(options, spares, name):
    port = free_port()
    command = [options.build / "quire", "serve", "-m", options.model, "--port", port, "--name", name, "--kv-memory", options.kv_memory,
               "--workers", options.workers, "--spares", spares, "--ctx", options.context, "--log-level", "warn"]  # fmt: skip
    return Program(command, port, "/health")


def is_whole(program, spares):
    try:
        state = program.get("/quire/state")
    except (OSError, ValueError, http.client.HTTPException):
        return None
    whole = all(worker["state"] == "ready" for worker in state["workers"]) and len(state["spares"]) >= spares
    return state if whole else None


def mapped_bytes(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssShmem:"))


def spares_wait(state):
    """A new spare maps all memory beside the others' work; a death in the midst of that would be the second within seconds."""
    pids = [spare["pid"] for spare in state["spares"]]
    before = None
    while (now := [mapped_bytes(pid) for pid in pids]) != before:
        before = now
        time.sleep(0.4)  # between two looks


def settle(session, dice):
    """Some tokens have come since, and a random moment more."""
    heard = len(session.heard)
    wait_until("tokens flow", lambda: len(session.heard) > heard + 20, SILENCE_S)
    time.sleep(dice.uniform(0, 0.1))


def worker_death(options, spares):
    dice, seconds = random.Random(SEED), []
    with quire(options, spares, f"recovery-{os.getpid()}") as program:
        session = OurSession(program, options.prompt, options.tokens)
        for _ in range(options.times):
            state = wait_until("all ranks stand", lambda: is_whole(program, spares))
            spares_wait(state)
            settle(session, dice)
            moment = time.monotonic()
            os.kill(dice.choice(state["workers"])["pid"], signal.SIGKILL)
            seconds.append(session.silence_behind(moment))
        session.over = True
    return seconds


def process_death(program, session_kind, options, times, is_ready):
    """Kill, start again at once."""
    dice, seconds = random.Random(SEED), []
    with program:
        session = session_kind(program, options.prompt, options.tokens)
        for _ in range(times):
            wait_until("it is ready", is_ready)
            settle(session, dice)
            moment = time.monotonic()
            program.kill()
            program.process.wait()
            program.start()
            seconds.append(session.silence_behind(moment))
        session.over = True
    return seconds


def coordinator_death(options):
    name = f"recovery-{os.getpid()}"
    program = quire(options, 1, name)
    return process_death(program, OurSession, options, options.restarts, lambda: is_whole(program, 1))


def peer_death(options, capacity):
    """`capacity`: positions of keys and values that it holds, as many as fit into --kv-memory, or what the one session needs."""
    server = options.peer.server_program()
    port = free_port()
    command = [server, "-m", options.model, "--port", port, "-c", capacity, "-np", max(1, capacity // options.context), "-t", options.workers, "--no-webui"]
    program = Program(command, port, "/health")
    return process_death(program, TheirSession, options, options.restarts, program.is_healthy)


def line(what, seconds, wish=""):
    p50, p99 = percentile(seconds, 50) * 1000, percentile(seconds, 99) * 1000
    return f"| {what} | {p50:.0f} ms | {p99:.0f} ms | {min(seconds) * 1000:.0f} to {max(seconds) * 1000:.0f} ms | {len(seconds)} | {wish} |"


def bytes_of(text):
    number, unit = re.fullmatch(r"(\d+)([MG]?)", text).groups()
    return int(number) << {"": 0, "M": 20, "G": 30}[unit]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=ROOT / "models/smollm2.gguf")
    parser.add_argument("--kv-memory", default="8G")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--prompt-tokens", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=6000, help="of the answer; behind them the session begins anew")
    parser.add_argument("--times", type=int, default=30, help="deaths of a worker")
    parser.add_argument("--restarts", type=int, default=20, help="deaths of the coordinator, and of the peer")
    parser.add_argument("--only", default="spare,none,coordinator,peer,peer-full")
    parser.add_argument("--output", help="appends its lines there")
    options = parser.parse_args()
    options.build = Path(os.environ.get("QUIRE_BUILD", ROOT / "build")).resolve()
    options.peer = Peer(ROOT / "build")
    dice = random.Random(SEED)
    options.prompt = [dice.randrange(100, 40000) for _ in range(options.prompt_tokens)]
    pages = f"{options.kv_memory} of pages"
    full = bytes_of(options.kv_memory) // SMOLLM2_POSITION_BYTES // options.context * options.context
    rows = {
        "spare": (f"quire: a worker dies, a spare waits, {pages}", lambda: worker_death(options, 1), "p99 < 50 ms"),
        "none": (f"quire: a worker dies, no spare, {pages}", lambda: worker_death(options, 0), "p99 < 1 s"),
        "coordinator": (f"quire: the coordinator dies, {pages}", lambda: coordinator_death(options), "p99 < 2 s"),
        "peer": ("llama-server: its process dies, room for this session only", lambda: peer_death(options, options.context), ""),
        "peer-full": (f"llama-server: its process dies, room as in {options.kv_memory}", lambda: peer_death(options, full), ""),
    }
    unknown = [name for name in options.only.split(",") if name not in rows]
    if unknown:
        parser.error(f"no row {unknown[0]}: there are {', '.join(rows)}")
    about = (f"{options.workers} workers or threads, {processor()['name']}, {Path(options.model).name}, prompt of {options.prompt_tokens} tokens, "
             f"peer {PACKAGE}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    head = ["| kill -9 to the session's next token | p50 | p99 | least to most | times | wish |", "|---|---|---|---|---|---|"]
    say("\n".join([about, "", *head]), options.output)
    for name in options.only.split(","):
        what, measure, wish = rows[name]
        if name.startswith("peer") and not options.peer.server_program():
            say(f"| {what}: not here | | | | | |", options.output)
        else:
            say(line(what, measure(), wish), options.output)


def say(text, output):
    """Line by line: what was measured counts also when the rest is cut off."""
    print(text, flush=True)
    if output:
        with open(output, "a") as out:
            out.write(text + "\n")


if __name__ == "__main__":
    main()
