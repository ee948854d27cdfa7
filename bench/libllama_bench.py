#!/usr/bin/env python3
"""Measures libllama (the pip package llama-cpp-python) the way `quire bench` measures quire; prints the same object.

    libllama_bench.py MODEL.gguf [--threads N] [--prefill 512] [--batch 1,4,8,16,32] [--prompt 128] [--gen 32]
                      [--repeat 3] [--flash auto|on|off] [--repack on|off]

prefill_tps[n]  tokens a second of one prompt of n tokens, the cache empty before it
decode_tps[b]   tokens a second of b sequences together, a prompt of --prompt tokens each in the cache, --gen steps
Each figure is the best of --repeat runs behind one that warms up. --flash and --repack are libllama's own settings
(flash attention; weights rearranged at load), so that it can be measured at its best.
"""
import argparse
import ctypes
import json
import os
import sys
import time

import llama_cpp as llama

FLASH = {"auto": -1, "off": 0, "on": 1}  # enum llama_flash_attn_type


def counts(text):
    return [int(word) for word in text.split(",") if word]


class Engine:
    def __init__(self, arguments, sequences, context):
        llama.llama_backend_init()
        self.quiet = llama.llama_log_callback(lambda level, text, data: None)  # kept: C calls it later
        llama.llama_log_set(self.quiet, ctypes.c_void_p(0))
        of_model = llama.llama_model_default_params()
        of_model.n_gpu_layers = 0
        if arguments.repack == "off":
            of_model.use_extra_bufts = False
        self.model = llama.llama_model_load_from_file(arguments.model.encode(), of_model)
        if not self.model:
            sys.exit(f"libllama_bench: libllama cannot load {arguments.model}")
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        wanted = llama.llama_context_default_params()
        wanted.n_ctx = context
        wanted.n_batch = max(2048, sequences)
        wanted.n_ubatch = 512
        wanted.n_seq_max = sequences
        wanted.kv_unified = True
        wanted.n_threads = wanted.n_threads_batch = arguments.threads
        wanted.flash_attn_type = FLASH[arguments.flash]
        self.context = llama.llama_init_from_model(self.model, wanted)
        if not self.context:
            sys.exit(f"libllama_bench: libllama has no room for {context} positions of {sequences} sequences")
        self.memory = llama.llama_get_memory(self.context)
        self.most = wanted.n_batch
        self.batch = llama.llama_batch_init(self.most, 0, 1)

    def token(self, i):
        return 100 + i * 7919 % (self.vocabulary - 200)

    def clear(self):
        llama.llama_memory_clear(self.memory, True)

    def step(self, entries):
        """entries: (token, position, sequence, whether its logits are wanted); returns when all is computed."""
        batch = self.batch
        for first in range(0, len(entries), self.most):
            some = entries[first:first + self.most]
            batch.n_tokens = len(some)
            for i, (token, position, sequence, wanted) in enumerate(some):
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
                batch.seq_id[i][0] = sequence
                batch.logits[i] = wanted
            code = llama.llama_decode(self.context, batch)
            if code:
                sys.exit(f"libllama_bench: llama_decode gave {code}")
        llama.llama_synchronize(self.context)

    def prompt(self, tokens, sequence):
        self.step([(self.token(i + sequence), i, sequence, i == tokens - 1) for i in range(tokens)])


def time_prefill(engine, tokens):
    engine.clear()
    began = time.perf_counter()
    engine.prompt(tokens, 0)
    return tokens / (time.perf_counter() - began)


def time_decode(engine, sequences, prompt, steps):
    engine.clear()
    for s in range(sequences):
        engine.prompt(prompt, s)
    began = time.perf_counter()
    for i in range(steps):
        engine.step([(engine.token(i + s), prompt + i, s, True) for s in range(sequences)])
    return sequences * steps / (time.perf_counter() - began)


def best(repeat, measure):
    return round(max([measure() for _ in range(repeat + 1)][1:]), 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--prefill", type=counts, default="512")
    parser.add_argument("--batch", type=counts, default="1,4,8,16,32")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--gen", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--flash", choices=FLASH, default="auto")
    parser.add_argument("--repack", choices=["on", "off"], default="on")
    a = parser.parse_args()
    widest = max(a.batch, default=1)
    engine = Engine(a, widest, max(max(a.prefill, default=0) + 8, widest * (a.prompt + a.gen + 8)))
    prefill = {str(n): best(a.repeat, lambda n=n: time_prefill(engine, n)) for n in a.prefill}
    decode = {str(b): best(a.repeat, lambda b=b: time_decode(engine, b, a.prompt, a.gen)) for b in a.batch}
    print(json.dumps({"engine": "libllama", "model": os.path.basename(a.model), "threads": a.threads,
                      "prefill_tps": prefill, "decode_tps": decode}))


main()
