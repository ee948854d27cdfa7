"""Rows that go through the server: memory of sequences, batching, gaps, load; the peer's server beside where it is there.

Prompts are lists of token ids where lengths matter. A row is a function of the Bench (run_bench.py) that returns a Row.
"""
import functools
import json
import random
import subprocess
import sys
import threading

from engines import ROOT, Broken, peer_server, quire_server
from gguf_shape import read_shape
from report import Line, Row, Spread
from rows_engine import figures_of

SEED = 7


def prompt_ids(source, count, vocabulary):
    """Nothing that another prompt begins with, so that no page is shared."""
    return [100 + source.randrange(vocabulary - 200) for _ in range(count)]


def completion(ids, max_tokens, **more):
    """A line of a plan: `more` is for bench_load."""
    return {"path": "/v1/completions", **more,
            "body": {"model": "default", "prompt": ids, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}}


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(p / 100 * len(values)))]


# ---- pages over tokens ----------------------------------------------------------------------------------------------


class StateSampler:
    """Reads GET /quire/state again and again while a block runs; keeps what sequences that decode hold."""

    def __init__(self, server, fewest):
        self.server, self.fewest, self.samples = server, fewest, []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def run(self):
        while not self.over.wait(0.05):
            state = self.server.get("/quire/state")
            speaking = [s for s in state["sessions"] if s["state"] == "decode"]
            if len(speaking) >= self.fewest:
                tokens, pages = sum(s["tokens"] for s in speaking), sum(s["pages"] for s in speaking)
                window_pages, sizes = sum(s.get("window_pages", 0) for s in speaking), [c["page_bytes"] for c in state["pages"]["classes"]]
                self.samples.append((tokens, pages * state["pages"]["page_tokens"], pages * sizes[0] + window_pages * sizes[-1]))


@functools.cache
def kv_rows(bench):
    """kv_overhead and kv_utilisation come from the same samples."""
    model = bench.model_path(bench.models[0])
    shape, source = read_shape(model), random.Random(SEED)
    sequences, least, most, gen = (16, 64, 768, 192) if not bench.quick else (4, 32, 128, 1500)
    plan = [completion(prompt_ids(source, source.randrange(least, most), shape.vocab), gen) for _ in range(sequences)]
    bench.say("kv_overhead, kv_utilisation")
    with (quire_server(bench.quire, model, sequences, most + gen) as server,
          StateSampler(server, max(2, sequences // 2)) as sampler):
        bench.quire.load(server.url, plan)
    if not sampler.samples:
        raise Broken("no moment was seen at which enough sequences decoded at once")
    overhead = [held / (tokens * shape.kv_bytes) for tokens, _, held in sampler.samples]
    used = [tokens / slots for tokens, slots, _ in sampler.samples]
    how = (f"{sequences} sequences with prompts of {least} to {most} tokens through the server, seed {SEED}; GET /quire/state "
           f"sampled while at least {max(2, sequences // 2)} decode ({len(used)} samples).")
    return (Row("kv_overhead", "bytes of pages held over bytes that the tokens' keys and values need", how, raw=overhead,
                lines=[Line("pages over tokens", "x", Spread.of(overhead), most=1.15)]),
            Row("kv_utilisation", "slots of held pages that hold a token", how, raw=used,
                lines=[Line("slots used", "of 1", Spread.of(used), least=0.90)]))


def kv_overhead(bench):
    return kv_rows(bench)[0]


def kv_utilisation(bench):
    return kv_rows(bench)[1]


# ---- continuous batching against static batches ---------------------------------------------------------------------


def continuous_vs_static(bench):
    model = bench.model_path(bench.models[0])
    shape, source = read_shape(model), random.Random(SEED)
    requests, longest = (48, 512) if not bench.quick else (12, 64)
    lengths = [round(longest ** source.uniform(0.45, 1)) for _ in range(requests)]
    prompts = [prompt_ids(source, 32, shape.vocab) for _ in lengths]
    rounds = []
    with quire_server(bench.quire, model, 16, longest + 64, ["--max-sessions", 16]) as server:
        for number in range(bench.rounds):
            bench.say(f"continuous_vs_static: round {number + 1} of {bench.rounds}")
            one = {}
            for name, wave in (("static", 8), ("continuous", requests)):
                # another first token each time, or the pages of the round before would answer
                plan = [completion([100 + 2 * number + (name == "static"), *ids], n, wave=i // wave)
                        for i, (ids, n) in enumerate(zip(prompts, lengths))]
                one[name] = bench.quire.load(server.url, plan)["generated_tps"]
            rounds.append(one)
    return Row("continuous_vs_static", "sequences that join and leave at every step against static batches",
               f"{requests} requests of 32 prompt tokens and {min(lengths)} to {max(lengths)} tokens to generate (log-uniform, "
               f"seed {SEED}, {sum(lengths)} in all) through one server. Continuous: all sent at once, the scheduler runs 16. "
               "Static: sent 8 at a time, the next 8 when the last of these has ended; what has ended leaves the batch early, "
               "which flatters the static side. Tokens a second of the whole.", raw=rounds,
               lines=[Line("continuous, 16", "tok/s", Spread.of([r["continuous"] for r in rounds])),
                      Line("static, 8", "tok/s", Spread.of([r["static"] for r in rounds])),
                      Line("continuous over static", "x", Spread.of([r["continuous"] / r["static"] for r in rounds]), least=2)])


# ---- the server's step against the engine's -------------------------------------------------------------------------


def speaking_rate(requests):
    """Tokens a second of all while all of them speak."""
    arrivals = [[r["sent_ms"] + t for t in r["times_ms"]] for r in requests]
    first, last = max(a[0] for a in arrivals), min(a[-1] for a in arrivals)
    pieces = sum(first < t <= last for a in arrivals for t in a)
    return pieces / (last - first) * 1000


def server_step(bench):
    model, batch = bench.model_path(bench.models[0]), 8
    shape, source = read_shape(model), random.Random(SEED)
    gen = 128 if not bench.quick else 32
    rounds = []
    with quire_server(bench.quire, model, batch, bench.prompt + gen) as server:
        for number in range(bench.rounds):
            bench.say(f"server_step: round {number + 1} of {bench.rounds}")
            plan = [completion(prompt_ids(source, bench.prompt, shape.vocab), gen) for _ in range(batch)]
            through_http = speaking_rate(bench.quire.load(server.url, plan, each=True))
            rounds.append({"server": through_http})
    for one in rounds:
        one["engine"] = figures_of(bench.quire.bench(model, [], [batch], bench.prompt, gen, bench.repeat))[f"decode {batch}"]
    return Row("server_step", f"a step of {batch} sequences through HTTP against the engine alone",
               f"{batch} streams of {gen} tokens, counted while all speak; quire bench with the same prompts' length; the client "
               "runs on the same cores.", raw=rounds,
               lines=[Line("server", "us a step", Spread.of([batch / r["server"] * 1e6 for r in rounds])),
                      Line("engine", "us a step", Spread.of([batch / r["engine"] * 1e6 for r in rounds])),
                      Line("server over engine, tok/s", "of 1", Spread.of([r["server"] / r["engine"] for r in rounds]))])


# ---- a long prompt among speakers -----------------------------------------------------------------------------------


def gaps_while(requests):
    """Gaps of the speakers (ms) before and after the long prompt was sent, and its time to first token."""
    long = max(requests, key=lambda r: r["sent_ms"])
    before, during = [], []
    for r in requests:
        arrivals = [r["sent_ms"] + t for t in r["times_ms"]] if r is not long else []
        for a, b in zip(arrivals, arrivals[1:]):
            (during if b > long["sent_ms"] else before).append(b - a)
    return before, during, long["times_ms"][0]


def gap(bench):
    model = bench.model_path(bench.models[0])
    shape, speakers = read_shape(model), 8
    tokens = min(7500, shape.context - 200) if not bench.quick else 1000
    bound, spoken = 100, 2500 if not bench.quick else 1500  # what a speaker says until the prompt is in, and more
    row = Row("gap", f"one prompt of {tokens} tokens arrives among {speakers} sequences that decode",
              f"Gaps between two pieces of text of the {speakers} speakers, from the moment the prompt is sent to its first "
              f"token; quire with --max-gap-ms {bound}; the peer's server with {speakers + 1} slots and its own defaults.", raw={})
    servers = {"quire": lambda: quire_server(bench.quire, model, speakers + 1, spoken,
                                                      ["--max-gap-ms", bound])}
    if bench.peer_has_server():
        servers["peer"] = lambda: peer_server(bench.peer.peer, model, speakers + 1, (speakers + 1) * min(shape.context, 8192))
    for name, start in servers.items():
        source, rounds = random.Random(SEED), []
        for number in range(bench.rounds):
            bench.say(f"gap: {name}, round {number + 1} of {bench.rounds}")
            plan = [completion(prompt_ids(source, 64, shape.vocab), 2 * spoken - 200) for _ in range(speakers)]
            plan.append(completion(prompt_ids(source, tokens, shape.vocab), 1, after_tokens=16, ends_all=True))
            with start() as server:
                before, during, first = gaps_while(bench.quire.load(server.url, plan, each=True))
            rounds.append({"before_p99": percentile(before, 99), "p99": percentile(during, 99), "longest": max(during),
                           "first_token": first})
        row.raw[name] = rounds
    for key, what, wish in (("before_p99", "p99 of gaps before", None), ("p99", "p99 of gaps", 1.2 * bound),
                            ("longest", "longest gap", None), ("first_token", "the prompt's first token", None)):
        row.lines.append(Line(what, "ms", Spread.of([r[key] for r in row.raw["quire"]]),
                              peer=Spread.of([r[key] for r in row.raw.get("peer", [])]), most=wish))
    return row


# ---- load -----------------------------------------------------------------------------------------------------------

DESK = ("You answer readers at the desk of a public library, in plain English and in a few sentences. Say so when you do not "
        "know. The house is open from nine to six on weekdays and from ten to four on Saturdays; loans run for three weeks "
        "and can be renewed twice unless another reader waits for the book. ")
ASKED = ["how bread rises", "why the sea is salt", "what a compiler does", "how tides come about", "what inflation is",
         "how glass is made", "why leaves fall", "how a lock on a canal works"]


def chat_plan(sessions, turns, tokens, long_share=0.25):
    """Conversations with one system prompt; a share of them begins with a long question."""
    plan = []
    for i in range(sessions):
        question = f"Reader {i} asks {ASKED[i % len(ASKED)]}, step by step and with an example."
        if i % 100 < 100 * long_share:
            question = " ".join(f"({k}) Think of {ASKED[(i + k) % len(ASKED)]}." for k in range(48)) + " " + question
        plan.append({"path": "/v1/chat/completions", "follow": [f"Go on with part {t + 2}." for t in range(turns - 1)],
                     "body": {"model": "default", "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "messages": [
                         {"role": "system", "content": DESK}, {"role": "user", "content": question}]}})
    return plan


def accept_load(url, sessions, turns, tokens):
    """The same by ../shared/accept/load.py, where that is there; None otherwise."""
    script = ROOT.parent / "shared" / "accept" / "load.py"
    if not script.exists():
        return None
    done = subprocess.run([sys.executable, "-B", script, "--url", url, "--sessions", str(sessions), "--turns", str(turns),
                           "--tokens", str(tokens)], capture_output=True, text=True, timeout=1800)
    if done.returncode != 0:
        raise Broken(f"load.py ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return json.loads(done.stdout.splitlines()[-1])


def load_line(clients, name, what, unit, read, wish=None):
    values = {engine: [read(r[name]) for r in rounds if r.get(name)] for engine, rounds in clients.items()}
    mine, peer = values["quire"], values.get("peer", [])
    line = Line(f"{name}: {what}", unit, Spread.of(mine), peer=Spread.of(peer))
    if peer:
        line.ratio = Spread.of([a / b for a, b in zip(mine, peer) if b])
        if wish:
            line.least, line.judged = wish, "ratio"
    return line


def server(bench):
    model = bench.model_path(bench.models[0])
    sessions, turns, tokens = (16, 2, 64) if not bench.quick else (4, 2, 8)
    servers = {"quire": lambda: quire_server(bench.quire, model, sessions, 2048)}
    if bench.peer_has_server():
        servers["peer"] = lambda: peer_server(bench.peer.peer, model, sessions, sessions * 2048)
    clients = {name: [] for name in servers}
    for number in range(min(bench.rounds, 3)):
        for name, start in servers.items():
            bench.say(f"server: {name}, round {number + 1}")
            one = {}
            with start() as running:
                one["bench_load"] = bench.quire.load(running.url, chat_plan(sessions, turns, tokens))
            with start() as running:  # again: from cold
                one["load.py"] = accept_load(running.url, sessions, turns, tokens)
            clients[name].append(one)
    row = Row("server", f"{sessions} conversations of {turns} turns, {tokens} tokens each",
              "Each server fresh, clients on the same cores: bench_load (compiled) and load.py of the acceptance checks. The "
              f"peer is llama-server with {sessions} slots.", raw=clients)
    for name in ("bench_load", "load.py"):
        if any(r.get(name) for r in clients["quire"]):
            row.lines += [load_line(clients, name, "all", "tok/s", lambda r: r["generated_tps"], 5),
                          load_line(clients, name, "first token, median", "ms", lambda r: r["first_token_ms"]["50"]),
                          load_line(clients, name, "first token, p99", "ms", lambda r: r["first_token_ms"]["99"]),
                          load_line(clients, name, "gap, p99", "ms", lambda r: r["gap_ms"]["99"]),
                          load_line(clients, name, "longest gap", "ms", lambda r: r["longest_gap_ms"])]
        else:
            row.notes.append(f"{name} is not there")
    if "peer" not in servers:
        row.notes.append("llama-server is not installed: nothing stands beside")
    return row
