#!/usr/bin/env python3
"""Measures the engine and the server, the peer beside them in the same run, and ends with a table.

    make bench [ARGS="…"]
    run_bench.py [--quick] [--rows a,b] [--models smollm2,1.2b:Q4_0] [--rounds 7] [--no-peer] [--output DIR]

A model is the name of a file in models/ or SHAPE:TYPE, which is made with random blocks (make_model.py). Results go to
bench/results/DATE-CPU.{json,md,svg}; those of --quick to the build folder: they only show that everything runs.
"""
import argparse
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True

import plot
import report
import rows_engine
import rows_server
from engines import ROOT, Broken, Libllama, Quire, Roofs, processor
from make_model import make_model
from peer import PACKAGE, Peer

ROWS = {
    "roofs": rows_engine.roofs,
    "engine": rows_engine.engine,
    "generation": rows_engine.generation,
    "batch_ratio": rows_engine.batch_ratio,
    "kv_overhead": rows_server.kv_overhead,
    "kv_utilisation": rows_server.kv_utilisation,
    "continuous_vs_static": rows_server.continuous_vs_static,
    "server_step": rows_server.server_step,
    "gap": rows_server.gap,
    "neighbour": rows_engine.neighbour,
    "server": rows_server.server,
    "matrix": rows_engine.matrix,
    "long_prompts": rows_engine.long_prompts,
    "kernels": rows_engine.kernels,
}
MODELS = ["smollm2", "1.2b:Q4_0", "1.2b:Q4_K_M", "1.2b:Q8_0"]


class Bench:
    """What every row gets: the engines, the sizes, and where models lie."""

    def __init__(self, arguments):
        self.build = Path(os.environ.get("QUIRE_BUILD", ROOT / "build")).resolve()
        self.quick = arguments.quick
        self.models = arguments.models or (["tiny:Q4_0"] if self.quick else MODELS)
        self.rounds = arguments.rounds or (1 if self.quick else 7)
        self.roof_rounds = 3 if self.quick else 9
        self.repeat = 1
        self.prompt, self.gen = (16, 8) if self.quick else (128, 32)
        self.batches = [1, 4] if self.quick else [1, 4, 8, 16, 32]
        self.prefill = [64] if self.quick else [128, 512]
        self.matrix_shape = "tiny" if self.quick else "0.3b"
        self.roofs, self.quire = Roofs(self.build), Quire(self.build)
        peer = Peer(self.build)
        if not arguments.no_peer and not self.quick:
            self.install(peer, arguments.rows)
        self.peer = Libllama(peer) if not arguments.no_peer and peer.has_library() else None

    def install(self, peer, rows):
        """Without the peer there are still quire's figures."""
        try:
            peer.install_library()
            if {"gap", "server"} & set(rows):
                peer.install_server()
        except (subprocess.CalledProcessError, OSError) as problem:
            self.say(f"the peer is not whole, what is missing of it is left out: {problem}")

    def peer_has_server(self):
        return self.peer is not None and self.peer.peer.server_program() is not None

    def has_vnni(self):
        return "avx512_vnni" in processor()["has"]

    def model_path(self, name):
        if ":" not in name:
            return ROOT / "models" / f"{name}.gguf"
        path = self.build / "bench-models" / f"{name.replace(':', '-')}.gguf"
        if not path.exists():
            self.say(f"making {path.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            make_model(*name.split(":"), path)
        return path

    @staticmethod
    def say(sentence):
        print(f"{time.strftime('%H:%M:%S')} {sentence}", file=sys.stderr, flush=True)


def commit():
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def about(bench, took):
    cpu = processor()
    load = os.getloadavg()[0]
    return {"date": datetime.date.today().isoformat(), "processor": cpu, "quick": bench.quick, "models": bench.models,
            "rounds": bench.rounds, "said": {
                "kernel": cpu["kernel"], "instruction sets": ", ".join(cpu["has"]) or "none that matter here",
                "quire": commit(), "peer": PACKAGE if bench.peer else "not measured",
                "rounds": bench.rounds, "took": f"{took / 60:.0f} minutes", "load average at the end": f"{load:.1f}",
                **({"QUICK": "a smoke test: these figures mean nothing"} if bench.quick else {})}}


def write_results(bench, rows, took, folder):
    """JSON, Markdown and SVG of one name; the JSON's path."""
    facts = about(bench, took)
    name = f"{facts['date']}-{re.sub(r'[^A-Za-z0-9]+', '-', facts['processor']['name']).strip('-').lower()}"
    folder.mkdir(parents=True, exist_ok=True)
    result = report.as_json(facts, rows)
    drawn = plot.picture(result)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    if drawn:
        (folder / f"{name}.svg").write_text(drawn)
    (folder / f"{name}.md").write_text(report.markdown(facts, rows, f"{name}.svg" if drawn else None))
    return folder / f"{name}.json"


def run_rows(bench, names, write):
    """A row that breaks is reported and the others go on; what there is is written after each row."""
    rows, broken = [], []
    for name in names:
        bench.say(f"row {name}")
        try:
            rows.append(ROWS[name](bench))
        except (Broken, OSError, ValueError, subprocess.TimeoutExpired) as problem:
            bench.say(f"row {name} broke: {problem}")
            rows.append(report.Row(name, "BROKEN", "", notes=[str(problem)]))
            broken.append(name)
        path = write(rows)
    return rows, broken, path


def row_names(text):
    names = text.split(",")
    for name in names:
        if name not in ROWS:
            raise argparse.ArgumentTypeError(f"no row {name}: there are {', '.join(ROWS)}")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round; shows that everything runs")
    parser.add_argument("--rows", type=row_names, default=list(ROWS), help="of: " + ", ".join(ROWS))
    parser.add_argument("--models", type=lambda text: text.split(","))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends with us
    began = time.monotonic()
    bench = Bench(arguments)
    folder = arguments.output or (bench.build / "bench-quick" if bench.quick else ROOT / "bench" / "results")
    rows, broken, path = run_rows(bench, arguments.rows,
                                  lambda rows: write_results(bench, rows, time.monotonic() - began, folder))
    print(report.table_text(rows))
    print(f"\n{path}" + (f"\nbroken rows: {', '.join(broken)}" if broken else ""))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
