"""Rows that need no server: the engine beside the peer in alternating rounds, and what follows from its figures.

A row is a function of the Bench (run_bench.py) that returns a Row.
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from engines import Broken, Disturbance
from gguf_shape import read_shape
from report import Line, Row, Spread

AGREE = 0.05  # two roofs of a round may differ by this share
STEAL = 0.01  # and the host may have taken this share of the time
FEWEST_KEPT = 3
MEMORY_GROWTH = 1.5  # private memory of the longest prompt over that of the shortest: ids and a list of pages, no row a token

# What the peer is to be beaten by: (model, figure): factor; "*" stands for the other types of a shape.
WANTED_RATIO = {
    ("smollm2", "decode 1"): 1.6, ("smollm2", "decode 8"): 4, ("smollm2", "decode 16"): 5, ("smollm2", "decode 32"): 5,
    ("smollm2", "prefill 512"): 4, ("gemma3", "decode 1"): 1.35, ("gemma3", "decode 16"): 3, ("gemma3", "prefill 512"): 2,
    ("1.2b", "decode 1"): 0.95, ("1.2b", "decode 8"): 2, ("1.2b", "decode 16"): 1.6,
    ("1.2b", "prefill 512"): 1.5, ("1.2b:Q8_0", "prefill 512"): 2,
}
WANTED_INT8 = {("smollm2", "decode 32"): 0.40, ("smollm2", "prefill 512"): 0.50}


def wanted_ratio(model, what):
    return WANTED_RATIO.get((model, what), WANTED_RATIO.get((model.split(":")[0], what)))


# ---- roofs ----------------------------------------------------------------------------------------------------------


def roofs(bench):
    size = read_shape(bench.model_path(bench.models[0])).weight_bytes
    got = [bench.roofs.measure(size, "read,int8,f32,barrier,channel") for _ in range(bench.rounds)]
    row = Row("roofs", "what this machine can do at most",
              f"bench_roofs over a shared segment of {size / 1e6:.0f} MB, one pinned thread a core; registers only for "
              "arithmetic; two processes for the barrier and the channel.", raw=got)

    def add(what, unit, values):
        row.lines.append(Line(what, unit, Spread.of(values)))

    for name, unit, key in (("read", "GB/s", "read_gbs"), ("int8", "GMAC/s", "int8_gmacs"), ("f32", "GMAC/s", "f32_gmacs")):
        for threads in got[0][key]:
            add(f"{name}, {threads} core{'s' if threads != '1' else ''}", unit, [g[key][threads] for g in got])
    add("barrier", "us", [g["barrier_us"] for g in got])
    add("ZeroMQ there and back", "us", [g["channel_us"] for g in got])
    row.notes.append(f"int8 by {got[0]['int8_by']}, f32 by {got[0]['f32_by']}; "
                     f"huge pages: {'yes' if got[0]['huge_pages'] else 'no'}")
    if not bench.has_vnni():
        row.notes.append("this processor has no AVX-512 VNNI: the wishes below are stated for one that has")
    return row


# ---- the engine beside the peer -------------------------------------------------------------------------------------


def figures_of(result):
    """{"decode 8": tokens a second, …}"""
    return {**{f"decode {b}": tps for b, tps in result["decode_tps"].items()},
            **{f"prefill {n}": tps for n, tps in result["prefill_tps"].items()}}


class Need:
    """What a figure asks of the machine, of the model's shape: bytes and multiply-accumulates for one token."""

    def __init__(self, shape, what, prompt, gen):
        kind, count = what.split()
        count = int(count)
        tokens = count  # that one pass over the weights serves
        if kind == "decode":
            kv = (prompt + gen / 2) * shape.kv_bytes
            self.macs = shape.macs
        else:
            tokens, kv = min(count, 512), 0
            self.macs = shape.macs - shape.head_macs + shape.head_macs / count  # one token of a prompt needs the head
        self.bytes = shape.weight_bytes / tokens + kv

    def shares(self, tps, read_bytes, macs):
        """Of bandwidth, of int8, and of the time that the slower of both would take."""
        bandwidth = tps * self.bytes / read_bytes
        int8 = tps * self.macs / macs if macs else None
        return bandwidth, int8, max(bandwidth, int8 or 0)


def measure_rounds(bench, model, prefill, batch, prompt, gen, settings):
    """Rounds of roof, quire, peer, roof."""
    path, size = bench.model_path(model), read_shape(bench.model_path(model)).weight_bytes
    rounds = []
    for number in range(bench.rounds):
        bench.say(f"{model}: round {number + 1} of {bench.rounds}")
        with Disturbance() as disturbance:
            before = bench.roofs.measure(size, rounds=bench.roof_rounds)
            mine = bench.quire.bench(path, prefill, batch, prompt, gen, bench.repeat)
            peer = bench.peer and bench.peer.bench(path, prefill, batch, prompt, gen, bench.repeat, settings)
            after = bench.roofs.measure(size, rounds=bench.roof_rounds)
        all_cores = str(before["threads"])
        read = [r["read_gbs"][all_cores] * 1e9 for r in (before, after)]
        macs = [r["int8_gmacs"].get(all_cores, 0) * 1e9 for r in (before, after)]
        agree = all(max(pair) - min(pair) <= AGREE * max(pair) for pair in (read, macs))
        rounds.append({"quire": figures_of(mine), "peer": figures_of(peer) if peer else {}, "read": sum(read) / 2,
                       "macs": sum(macs) / 2, "steal": disturbance.steal, "quiet": agree and disturbance.steal < STEAL})
    return rounds


def quiet_rounds(rounds):
    """Those during which the machine was ours, or all when they are too few, and a sentence about it."""
    quiet = [r for r in rounds if r["quiet"]]
    if len(quiet) >= FEWEST_KEPT:
        return quiet, f"{len(quiet)} of {len(rounds)} rounds kept: roofs within 5 %, steal below 1 %"
    return rounds, (f"DISTURBED: only {len(quiet)} of {len(rounds)} rounds were quiet (roofs within 5 %, steal below "
                    "1 %), so all are shown; measure again on a quiet machine")


def engine_line(model, shape, what, rounds, prompt, gen):
    need = Need(shape, what, prompt, gen)
    shares = [need.shares(r["quire"][what], r["read"], r["macs"]) for r in rounds]
    has_peer = all(what in r["peer"] for r in rounds)
    line = Line(f"{model} {what}", "tok/s", Spread.of([r["quire"][what] for r in rounds]),
                bandwidth=Spread.of([s[0] for s in shares]), int8=Spread.of([s[1] for s in shares]),
                roof=Spread.of([s[2] for s in shares]))
    if has_peer:
        line.peer = Spread.of([r["peer"][what] for r in rounds])
        line.ratio = Spread.of([r["quire"][what] / r["peer"][what] for r in rounds])
        line.least, line.judged = wanted_ratio(model, what), "ratio"
    return line


def engine(bench):
    row = Row("engine", "tokens a second beside the peer",
              "Rounds of roof, quire bench, libllama, roof in one run; median over the rounds (least-most), ratios taken "
              f"round by round. Prompts of {bench.prompt} tokens in the cache, {bench.gen} tokens each; libllama at the best of "
              "its settings. Shares: bytes of all weight matrices once a step (and of the sequences' keys and values) over "
              "read bandwidth; multiply-accumulates of the weights over the int8 rate; the larger of both is the share of "
              "the roof.", raw={})
    for model in bench.models:
        path = bench.model_path(model)
        shape = read_shape(path)
        batch = [b for b in bench.batches if b <= 16 or shape.weight_bytes < 400e6]
        settings, tried = None, None
        if bench.peer:
            bench.say(f"{model}: the peer's best settings")
            settings, tried = bench.peer.best_settings(path, [min(bench.prefill)], [1, 8], 32, 8)
        rounds = measure_rounds(bench, model, [bench.prefill[-1]], batch, bench.prompt, bench.gen, settings)
        kept, sentence = quiet_rounds(rounds)
        for what in kept[0]["quire"]:
            row.lines.append(engine_line(model, shape, what, kept, bench.prompt, bench.gen))
            if (model, what) in WANTED_INT8 and row.lines[-1].int8:
                row.lines.append(Line(f"{model} {what}, share of int8", "", row.lines[-1].int8,
                                      least=WANTED_INT8[model, what]))
        row.notes.append(f"{model}: {sentence}; {shape.weight_bytes / 1e6:.1f} MB of weights a step, {shape.macs / 1e6:.1f} "
                         f"million multiply-accumulates a token" + (f"; peer's settings: {settings}" if settings else ""))
        row.raw[model] = {"rounds": rounds, "kept": len(kept), "peer_tried": tried, "weight_bytes": shape.weight_bytes,
                          "macs": shape.macs, "types": shape.types}
    if not bench.peer:
        row.notes.append("the peer is not installed: its columns are missing")
    return row


def generation(bench):
    got = [figures_of(bench.quire.bench(bench.model_path(bench.models[0]), [], [1], bench.prompt, bench.gen, bench.repeat))
           for _ in range(bench.rounds)]
    return Row("generation", "one sequence", "quire bench, decode of 1.", raw=got,
               lines=[Line("decode 1", "tok/s", Spread.of([g["decode 1"] for g in got]), least=70)])


def batch_ratio(bench):
    model = bench.models[0]
    prefill = [1, 8, 16, 32] if not bench.quick else [1, 8]
    batch = [1, 8, 16, 32] if not bench.quick else [1, 8]
    rounds = []
    for number in range(bench.rounds):
        bench.say(f"batch_ratio: round {number + 1} of {bench.rounds}")
        rounds.append(figures_of(bench.quire.bench(bench.model_path(model), prefill, batch, bench.prompt, bench.gen,
                                                   bench.repeat)))
    row = Row("batch_ratio", "tokens a second of n over those of one",
              "quire bench; n sequences decoding over one, and a prompt of n tokens over a prompt of one (to its first "
              "token); ratios round by round.", raw=rounds)
    for kind, counts in (("decode", batch), ("prefill", prefill)):
        for n, below, least in ((8, 1, 3), (16, 1, 5), (32, 16, 1)):
            if n in counts and below in counts:
                values = [r[f"{kind} {n}"] / r[f"{kind} {below}"] for r in rounds]
                row.lines.append(Line(f"{kind} {n} over {below}", "x", Spread.of(values), least=least))
    row.notes.append("16 over 1 may be below 5 where one alone uses more than 75 % of the bandwidth roof: see the engine row")
    return row


# ---- the matrix -----------------------------------------------------------------------------------------------------


def pages_at_most(bench, model, batch, prompt, gen):
    """KV bytes held at the fullest moment of a run, seen from outside by quire inspect."""
    command = [str(w) for w in bench.quire.bench_command(model, [], [batch], prompt, gen, 1)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        seen = subprocess.run([bench.quire.program, "inspect", "--name", f"private.bench.{process.pid}", "--json"],
                              capture_output=True, text=True)
        if seen.returncode == 0 and '"pages"' in seen.stdout:
            pages = json.loads(seen.stdout)["pages"]
            most = max(most, pages["total"] - pages["free"] - pages["cached"] - pages["retired"])
        time.sleep(0.02)  # a sample of somebody else's memory
    return most


def matrix(bench):
    types = ["Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0"] if not bench.quick else ["Q4_K_M"]
    lengths, batches = ([1, 16, 128, 512], [1, 2, 4, 8, 16]) if not bench.quick else ([16], [1, 4])
    gen = 16 if not bench.quick else 4
    row = Row("matrix", f"batch x sequence x type, shape {bench.matrix_shape}",
              "quire bench on files of the same shape with random blocks. Share of the roof: the time that reading weights, "
              "keys and values at the measured bandwidth, or multiplying at the measured int8 rate, would take at least, "
              "over the time it took.", raw=[])
    for kind in types:
        model = f"{bench.matrix_shape}:{kind}"
        path = bench.model_path(model)
        shape = read_shape(path)
        for length in lengths:
            bench.say(f"matrix: {kind}, sequences of {length}")
            roof = bench.roofs.measure(shape.weight_bytes, rounds=bench.roof_rounds)
            got = figures_of(bench.quire.bench(path, [], batches, length, gen, bench.repeat))
            cores = str(roof["threads"])
            one = got["decode 1"]
            for b in batches:
                tps = got[f"decode {b}"]
                shares = Need(shape, f"decode {b}", length, gen).shares(
                    tps, roof["read_gbs"][cores] * 1e9, roof["int8_gmacs"].get(cores, 0) * 1e9)
                line = Line(f"{kind} {b} x {length}", "tok/s", Spread.of([tps]),
                            bandwidth=Spread.of([shares[0]]), int8=Spread.of([shares[1]]), roof=Spread.of([shares[2]]))
                if b >= 4:
                    line.least, line.judged = 0.80, "roof"
                row.lines.append(line)
                row.raw.append({"type": kind, "batch": b, "sequence": length, "tps": tps, "over_one": tps / one,
                                "of_roof": shares[2]})
            row.lines.append(Line(f"{kind} 4 over 1, x {length}", "x", Spread.of([got["decode 4"] / one]), least=3))
    for b in batches:
        bench.say(f"matrix: memory of {b} sequences")
        length = lengths[-1]
        said = gen if not bench.quick else 1000  # long enough to be seen
        pages = pages_at_most(bench, bench.model_path(f"{bench.matrix_shape}:{types[0]}"), b, length, said)
        row.lines.append(Line(f"KV pages of 16 tokens held, {b} x {length}", "pages", Spread.of([pages])))
        row.raw.append({"batch": b, "sequence": length, "pages": pages})
    row.notes.append("memory: pages are the same for every weight type; linear in the batch when the last lines double with it")
    return row


# ---- prompts of thousands of tokens ---------------------------------------------------------------------------------


def private_bytes(pid):
    """Anonymous memory of a process and its children: what is neither weights nor pages."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1]) * 1024
            waiting += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            pass  # it has ended
    return total


def last_json(process):
    text = process.stdout.read().strip()
    if process.returncode != 0 or not text:
        raise Broken(f"quire bench ended with {process.returncode}")
    return json.loads(text.splitlines()[-1])


def long_prompts(bench):
    model = bench.model_path("0.1b:Q4_0" if not bench.quick else bench.models[0])
    lengths = [512, 2048, 8192, 32768] if not bench.quick else [128, 1024]
    row = Row("long_prompts", "prompts without a matrix of n by n",
              "quire bench --prefill N on the shape 0.1b, Q4_0; private memory of the coordinator and all workers at its highest.")
    for n in lengths:
        bench.say(f"long_prompts: {n}")
        process = subprocess.Popen([str(w) for w in bench.quire.bench_command(model, [n], [], 1, 1, 1)],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        most = 0
        while process.poll() is None:
            most = max(most, private_bytes(process.pid))
            time.sleep(0.02)
        result = last_json(process)
        row.lines.append(Line(f"prefill {n}", "tok/s", Spread.of([result["prefill_tps"][str(n)]])))
        row.lines.append(Line(f"private memory, {n} tokens", "MB", Spread.of([most / 1e6])))
    first, last = row.lines[1].quire.median, row.lines[-1].quire.median
    row.lines.append(Line(f"memory, {lengths[-1]} over {lengths[0]} tokens", "x", Spread.of([last / first]), most=MEMORY_GROWTH))
    return row


# ---- a busy neighbour -----------------------------------------------------------------------------------------------


class Spinner:
    """A process that spins on the first core that we may use."""

    def __enter__(self):
        core = min(os.sched_getaffinity(0))
        code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
        self.process = subprocess.Popen([sys.executable, "-c", code])

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def neighbour(bench):
    path, batch = bench.model_path(bench.models[0]), 8
    row = Row("neighbour", "throughput kept with another process spinning on one core",
              f"Decode of {batch}, rounds of alone and beside a spinning process pinned to one of the cores; kept = beside "
              "over alone, round by round.", raw=[])
    for number in range(bench.rounds):
        bench.say(f"neighbour: round {number + 1} of {bench.rounds}")
        one = {}
        for name, engine_under_test in (("quire", bench.quire), ("peer", bench.peer)):
            if engine_under_test:
                alone = figures_of(engine_under_test.bench(path, [], [batch], bench.prompt, bench.gen, bench.repeat))
                with Spinner():
                    beside = figures_of(engine_under_test.bench(path, [], [batch], bench.prompt, bench.gen, bench.repeat))
                one[name] = beside[f"decode {batch}"] / alone[f"decode {batch}"]
        row.raw.append(one)
    row.lines.append(Line("throughput kept", "of 1", Spread.of([r["quire"] for r in row.raw]),
                          peer=Spread.of([r.get("peer") for r in row.raw]), least=0.40))
    if len(os.sched_getaffinity(0)) != 2:
        row.notes.append("the wish of 0.40 is stated for two cores")
    return row


# ---- kernels alone --------------------------------------------------------------------------------------------------


def kernels(bench):
    program = bench.build / "release" / "bench" / "bench_kernels"
    more = ["--type", "Q4_1", "--shape", "576x576", "--rounds", "1"] if bench.quick else []
    done = subprocess.run([program, *more], capture_output=True, text=True, timeout=3600)
    row = Row("kernels", "matrix products and attention on one core, alone",
              "bench_kernels: best of its rounds, matrices larger than the caches.", text=done.stdout)
    if done.returncode != 0:
        row.notes.append(f"bench_kernels ended with {done.returncode}: {done.stderr.strip()}")
    return row
