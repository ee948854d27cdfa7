#!/usr/bin/env python3
"""Ten thousand connections that wait while 256 streams decode: what each costs, and whether anybody is hurt by it.

    bench/connections.py [--idle 5000] [--queued 5000] [--streams 256] [--seconds 600] [--output FILE.md]

One client process holds them all on one epoll. Idle connections ask for /health every 40 seconds, so that keep-alive is used and not only held. Streams that
end are asked for anew at the end of the queue, so that as many wait and decode at the end as at the beginning. The memory of each is what
the coordinator's own memory (RssAnon) and the kernel's socket memory grew by when they came, over their number.
"""
import argparse
import collections
import contextlib
import errno
import json
import os
import random
import resource
import select
import socket
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True

from engines import ROOT, processor
from recovery import Program, free_port, percentile

SEED = 7
POKE_S = 40  # the server ends a connection that idles for 60
CONNECTING_MOST = 200  # at once: the kernel's queue is short


class Client:
    """One connection: idle, or a stream that is asked for anew when it is done."""

    __slots__ = ("crowd", "kind", "socket", "heard", "events", "tail", "answered", "poked")

    def __init__(self, crowd, kind):
        self.crowd, self.kind, self.poked = crowd, kind, 0.0
        self.open()

    def open(self):
        self.heard, self.events, self.tail, self.answered = None, 0, b"", False
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if (problem := self.socket.connect_ex(("127.0.0.1", self.crowd.port))) not in (0, errno.EINPROGRESS):
            raise OSError(problem, os.strerror(problem))
        self.crowd.epoll.register(self.socket, select.EPOLLOUT)
        self.crowd.clients[self.socket.fileno()] = self
        self.crowd.connecting += 1

    def close(self):
        del self.crowd.clients[self.socket.fileno()]
        self.crowd.epoll.unregister(self.socket)
        self.socket.close()

    def writable(self, now):
        """The connection stands: ask."""
        self.crowd.epoll.modify(self.socket, select.EPOLLIN)
        self.socket.send(self.crowd.question(self.kind))
        self.crowd.connecting -= 1
        self.poked = now

    def poke(self, now):
        self.poked, self.answered = now, False
        self.socket.send(self.crowd.question(self.kind))

    def readable(self, now):
        data = self.socket.recv(65536)
        if not data:
            self.crowd.problem(f"the server closed a connection ({self.kind}) behind {self.tail[-80:]!r}")
            self.close()
            return
        if not self.answered:
            self.answered = True
            self.crowd.answers[self.kind] += 1
            if b" 200 OK" not in data[:40]:
                self.crowd.problem(f"{self.kind}: {data[:120]!r}")
        if self.kind == "stream":
            self.take(data, now)

    def take(self, data, now):
        text = self.tail + data
        self.tail = text[-16:]
        events = data.count(b"\ndata: {") + data.startswith(b"data: {")
        if events:
            if self.heard is not None:
                self.crowd.gaps.append(now - self.heard)
            self.heard = now
            self.events += events
            self.crowd.tokens += events
            if b'"error":{' in data:
                self.crowd.problem(f"an error event: {data[:300]!r}")
        if b"[DONE]" in text:
            self.crowd.done += 1
            self.close()
            self.open()


class Crowd:
    def __init__(self, port, tokens):
        self.port, self.tokens_each = port, tokens
        self.epoll = select.epoll()
        self.clients = {}
        self.gaps = collections.deque(maxlen=2_000_000)
        self.problems, self.answers = collections.Counter(), collections.Counter()
        self.connecting = self.tokens = self.done = 0
        self.next_poke = 0.0
        self.dice = random.Random(SEED)

    def problem(self, text):
        self.problems[text] += 1

    def question(self, kind):
        if kind == "idle":
            return b"GET /health HTTP/1.1\r\nHost: quire\r\n\r\n"
        prompt = [self.dice.randrange(100, 40000) for _ in range(8)]
        body = json.dumps({"model": "default", "prompt": prompt, "max_tokens": self.tokens_each, "ignore_eos": True, "stream": True, "seed": 1}).encode()
        return b"POST /v1/completions HTTP/1.1\r\nHost: quire\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def turn(self, wait_s=0.05):
        if time.monotonic() > self.next_poke:
            self.next_poke = time.monotonic() + 5
            self.poke_idle(time.monotonic())
        for fd, what in self.epoll.poll(wait_s, 512):
            client, now = self.clients.get(fd), time.monotonic()
            if client is None:
                continue
            try:
                if what & (select.EPOLLERR | select.EPOLLHUP):
                    raise OSError(client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "reset")
                if what & select.EPOLLOUT:
                    client.writable(now)
                if what & select.EPOLLIN:
                    client.readable(now)
            except BlockingIOError:
                pass
            except OSError as problem:
                self.problem(f"{client.kind}: {problem}")
                client.close()

    def grow(self, kind, count, is_there, patience_s=300):
        """Opens so many more and waits until the server has them."""
        deadline, left = time.monotonic() + patience_s, count
        while True:
            while left and self.connecting < CONNECTING_MOST:
                Client(self, kind)
                left -= 1
            self.turn()
            if not left and is_there():
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"{count} more of {kind}: not within {patience_s} s, {left} not opened; {dict(self.problems.most_common(3))}")

    def poke_idle(self, now):
        for client in list(self.clients.values()):
            if client.kind == "idle" and client.answered and now - client.poked > POKE_S:
                client.poke(now)

    def count(self, kind):
        return sum(client.kind == kind for client in self.clients.values())


# ---- memory


def field(pid, name):
    return next((int(line.split()[1]) * 1024 for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name)), 0)


def socket_bytes():
    """The kernel's memory of all TCP sockets, ours and the server's: buffers, in pages."""
    line = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    words = line.split()
    return int(words[words.index("mem") + 1]) * 4096


class Watch:
    def __init__(self, program, crowd):
        self.program, self.crowd, self.asked, self.last, self.health = program, crowd, 0.0, {}, []

    def state(self, every_s=0.5):
        """Asked now and then, on a connection of its own: also how long /health takes."""
        if time.monotonic() - self.asked > every_s:
            began = time.monotonic()
            self.program.get("/health")
            self.health.append(time.monotonic() - began)
            self.last = self.program.get("/quire/state")
            self.asked = time.monotonic()
        return self.last

    def decoding(self):
        return sum(session["state"] == "decode" for session in self.state()["sessions"])

    def memory(self):
        """Behind a moment of rest."""
        until = time.monotonic() + 2
        while time.monotonic() < until:
            self.crowd.turn()
        return field(self.program.process.pid, "RssAnon"), socket_bytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=ROOT / "models/smollm2.gguf")
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--queued", type=int, default=5000)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--tokens", type=int, default=400, help="of each answer")
    parser.add_argument("--kv-memory", default="4G")
    parser.add_argument("--output", help="a Markdown file to append to")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    build = Path(os.environ.get("QUIRE_BUILD", ROOT / "build")).resolve()
    port = free_port()
    command = [build / "quire", "serve", "-m", options.model, "--port", port, "--name", f"connections-{os.getpid()}", "--kv-memory", options.kv_memory,
               "--session-slots", options.streams, "--max-sessions", options.streams, "--max-queue", options.queued + options.streams, "--ctx", 2048,
               "--log-level", "warn"]  # fmt: skip
    with Program(command, port, "/health") as program:
        crowd = Crowd(port, options.tokens)
        watch = Watch(program, crowd)
        watch.state()
        steps = [("ready", 0, watch.memory())]
        crowd.grow("idle", options.idle, lambda: crowd.answers["idle"] >= options.idle)
        steps.append((f"{options.idle} idle keep-alive connections", options.idle, watch.memory()))
        crowd.grow("stream", options.streams, lambda: watch.decoding() >= options.streams)
        steps.append((f"{options.streams} decoding streams", options.streams, watch.memory()))
        crowd.grow("stream", options.queued, lambda: watch.state()["waiting"] >= options.queued - 8)
        steps.append((f"{options.queued} queued streams", options.queued, watch.memory()))
        said = hold(options, crowd, watch)
        steps.append((f"{options.seconds:.0f} s later", 0, watch.memory()))
        descriptors = len(os.listdir(f"/proc/{program.process.pid}/fd"))
    text = report(options, steps, said, descriptors)
    print(text)
    if options.output:
        with open(options.output, "a") as out:
            out.write(text)
    sys.exit(1 if crowd.problems or said["least idle"] < options.idle else 0)


def hold(options, crowd, watch):
    """All of them for so long; how many there are at the worst moment."""
    crowd.gaps.clear()
    watch.health.clear()
    began, tokens, next_look = time.monotonic(), crowd.tokens, 0.0
    decoding, waiting, idle = [], [], []
    while (now := time.monotonic()) < began + options.seconds:
        crowd.turn()
        if now > next_look:
            next_look = now + 5
            decoding.append(watch.decoding())
            waiting.append(watch.last["waiting"])
            idle.append(crowd.count("idle"))
    return {"decoding": decoding, "waiting": waiting, "least idle": min(idle), "tokens": crowd.tokens - tokens, "seconds": time.monotonic() - began,
            "gaps": list(crowd.gaps), "health": list(watch.health), "done": crowd.done, "problems": dict(crowd.problems)}  # fmt: skip


def report(options, steps, said, descriptors):
    lines = [f"{processor()['name']}, {processor()['cores']} cores, {Path(options.model).name}, --kv-memory {options.kv_memory}, load {os.getloadavg()[0]:.1f}", "",
             "| | coordinator's own memory | each | socket memory of the kernel, both ends | each |", "|---|---|---|---|---|"]  # fmt: skip
    for (what, count, (own, kernel)), (_, _, (own_before, kernel_before)) in zip(steps, [steps[0], *steps]):
        each = (f"{(own - own_before) / count:.0f} B", f"{(kernel - kernel_before) / count:.0f} B") if count else ("", "")
        lines.append(f"| {what} | {own / 1e6:.1f} MB | {each[0]} | {kernel / 1e6:.1f} MB | {each[1]} |")
    gaps = said["gaps"] or [float("nan")]
    lines += ["", "| held | |", "|---|---|", f"| time | {said['seconds']:.0f} s |",
              f"| decoding at once, looked at every 5 s | least {min(said['decoding'])}, median {percentile(said['decoding'], 50)} |",
              f"| waiting in the queue | least {min(said['waiting'])}, most {max(said['waiting'])} |",
              f"| idle connections open | least {said['least idle']} |",
              f"| tokens | {said['tokens']}, {said['tokens'] / said['seconds']:.0f} a second; {said['done']} answers done |",
              f"| gap between two tokens of a stream | p50 {percentile(gaps, 50) * 1000:.0f} ms, p99 {percentile(gaps, 99) * 1000:.0f} ms |",
              f"| /health | p50 {percentile(said['health'], 50) * 1000:.1f} ms, p99 {percentile(said['health'], 99) * 1000:.1f} ms |",
              f"| descriptors of the coordinator | {descriptors} |", f"| problems | {said['problems'] or 'none'} |"]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
