"""The things that are measured: the machine's roofs, quire and its peer, as programs and as servers."""
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from gguf_shape import read_shape

ROOT = Path(__file__).resolve().parent.parent
READY_S = 300


class Broken(Exception):
    """One sentence: what was run and how it ended."""


def run_json(command, timeout=3600, **options):
    """The last line that a program prints, as JSON."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout, **options)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Broken(f"{Path(str(command[0])).name} ended with {done.returncode}: {last}")
    return json.loads(lines[-1])


def csv(numbers):
    return ",".join(map(str, numbers))


# ---- the machine ----------------------------------------------------------------------------------------------------


def processor():
    """Name, cores that we may use, and the instruction sets that decide about figures."""
    text = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", text)
    flags = set((re.search(r"flags\s*: (.*)", text) or [None, ""])[1].split())
    return {"name": name[1].strip() if name else os.uname().machine, "cores": len(os.sched_getaffinity(0)),
            "has": [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if flag in flags],
            "kernel": os.uname().release}


class Disturbance:
    """What others took of the machine while a block ran: steal by the host, and load by other programs here."""

    def __enter__(self):
        self.before = self.read()
        return self

    def __exit__(self, *_):
        spent = [b - a for a, b in zip(self.before, self.read())]
        self.steal = spent[7] / max(1, sum(spent[:8]))

    @staticmethod
    def read():
        with open("/proc/stat") as file:
            return [int(word) for word in file.readline().split()[1:]]


class Roofs:
    def __init__(self, build):
        self.program = build / "release" / "bench" / "bench_roofs"

    def measure(self, size, only="read,int8", rounds=9):
        return run_json([self.program, "--bytes", size, "--rounds", rounds, "--only", only])


# ---- the engines ----------------------------------------------------------------------------------------------------


def kv_memory(shape, sequences, tokens):
    """Twice what so many sequences of so many tokens need, and something to start with: filling pages takes time."""
    return 2 * sequences * (tokens + 32) * shape.kv_bytes + (32 << 20)


class Quire:
    name = "quire"

    def __init__(self, build):
        self.program = build / "quire"
        self.load_program = build / "release" / "bench" / "bench_load"

    def bench_command(self, model, prefill, batch, prompt, gen, repeat):
        shape = read_shape(model)
        memory = max(kv_memory(shape, max(batch, default=0), prompt + gen), kv_memory(shape, 1, max(prefill, default=0)))
        return [self.program, "bench", "-m", model, "--json", "--prefill", csv(prefill), "--batch", csv(batch),
                "--prompt", prompt, "--gen", gen, "--repeat", repeat, "--kv-memory", memory]

    def bench(self, model, prefill=(), batch=(), prompt=128, gen=32, repeat=1):
        return run_json(self.bench_command(model, prefill, batch, prompt, gen, repeat))

    def load(self, url, plan, each=False, timeout=900):
        """Runs bench_load: its summary, or a list of requests when `each`."""
        command = [self.load_program, "--url", url, "--timeout", timeout, *(["--each"] if each else [])]
        done = subprocess.run(list(map(str, command)), input="".join(json.dumps(line) + "\n" for line in plan),
                              capture_output=True, text=True, timeout=timeout + 60)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        errors = [line["error"] for line in lines if line.get("error")]
        if done.returncode != 0 or not lines:
            raise Broken(f"load on {url} met an error: {(errors or [done.stderr.strip() or lines])[0]}")
        return lines if each else lines[-1]


class Libllama:
    """The peer as a library. `settings` are those of libllama_bench.py."""

    name = "libllama"
    SETTINGS = [{"flash": flash, "repack": repack} for flash in ("on", "off") for repack in ("on", "off")]

    def __init__(self, peer):
        self.peer = peer

    def bench(self, model, prefill=(), batch=(), prompt=128, gen=32, repeat=1, settings=None):
        more = [word for key, value in (settings or {}).items() for word in ("--" + key, value)]
        return run_json([self.peer.python, ROOT / "bench" / "libllama_bench.py", model, "--prefill", csv(prefill),
                         "--batch", csv(batch), "--prompt", prompt, "--gen", gen, "--repeat", repeat, *more])

    def best_settings(self, model, prefill, batch, prompt, gen):
        """The settings with the best figures, taken together, and what was tried."""
        tried = []
        for settings in self.SETTINGS:
            got = self.bench(model, prefill, batch, prompt, gen, 1, settings)
            product = 1.0
            for tps in [*got["prefill_tps"].values(), *got["decode_tps"].values()]:
                product *= tps
            tried.append({**settings, "prefill_tps": got["prefill_tps"], "decode_tps": got["decode_tps"],
                          "product": product})
        best = max(tried, key=lambda one: one.pop("product"))
        return {"flash": best["flash"], "repack": best["repack"]}, tried


# ---- the engines as servers -----------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A running server; `with` ends it."""

    def __init__(self, name, command, port):
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_until_ready(time.monotonic() + READY_S)
        self.warm_up()

    def wait_until_ready(self, deadline):
        while True:
            if self.process.poll() is not None:
                raise Broken(f"the server of {self.name} ended with {self.process.returncode} before it was ready")
            with contextlib.suppress(OSError):  # nobody listens yet, or 503
                self.get("/health")
                return
            if time.monotonic() > deadline:
                self.end()
                raise Broken(f"the server of {self.name} was not ready within {READY_S} s")
            time.sleep(0.05)  # polls somebody else's program: there is no event to wait for

    def warm_up(self):
        """The first request of a process pays for memory that nobody touched yet."""
        body = {"model": "default", "prompt": [100, 101, 102, 103], "max_tokens": 4, "ignore_eos": True}
        request = urllib.request.Request(self.url + "/v1/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=READY_S) as answer:
            answer.read()

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def quire_server(quire, model, sequences, tokens, more=()):
    """A server with room for so many sequences of so many tokens."""
    port, memory = free_port(), kv_memory(read_shape(model), sequences, tokens)
    return Server("quire", [quire.program, "serve", "-m", model, "--port", port, "--name", f"bench-{os.getpid()}-{port}",
                            "--drain", 0, "--kv-memory", memory, *more], port)


def peer_server(peer, model, slots, context):
    """llama-server with `slots` sequences over one cache of `context` positions; None when it is not there."""
    program = peer.server_program()
    if not program:
        return None
    port = free_port()
    return Server("llama-server", [program, "-m", model, "--host", "127.0.0.1", "--port", port, "-np", slots, "-c", context,
                                   "-t", len(os.sched_getaffinity(0)), "--kv-unified"], port)
