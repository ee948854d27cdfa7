#!/usr/bin/env python3
"""Writes a GGUF file of a model's shape with random blocks, so that large models are measured without a download.

    make_model.py SHAPE TYPE FILE [--seed N] [--head TYPE]

SHAPE is one of SHAPES below; TYPE a tensor type (Q4_0, Q6_K, F16, …) or a mix (Q4_K_M, Q5_K_M). The same arguments
give the same bytes. What it says is nonsense; how long that takes is not. Scales are small numbers, so that nothing
overflows on the way through the layers; blocks come from a pool of random ones, taken in another order by each tensor.
The tokenizer is a small one of bytes, pairs and words (GPT-2's kind), whole enough to serve text.
"""
import argparse
import os
import random
import struct
from pathlib import Path
from typing import NamedTuple

from gguf_shape import ARRAY, BOOL, F32, STRING, TYPES, U32


class Dims(NamedTuple):
    layers: int
    dim: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool  # the head is the embedding
    rope_base: float
    context: int
    arch: str = "llama"  # or "gpt2": learned positions, biases, one matrix for Q, K and V, no gate


SHAPES = {
    "tiny": Dims(2, 256, 512, 4, 2, 1024, True, 10000, 4096),
    "tiny-gpt2": Dims(2, 256, 512, 4, 4, 1024, True, 0, 1024, "gpt2"),
    "smollm2-135m": Dims(30, 576, 1536, 9, 3, 49152, True, 100000, 8192),
    "gpt2-124m": Dims(12, 768, 3072, 12, 12, 50257, True, 0, 1024, "gpt2"),
    "0.1b": Dims(12, 768, 2048, 12, 4, 32768, True, 100000, 65536),
    "0.3b": Dims(16, 1024, 4096, 16, 4, 32768, True, 100000, 32768),
    "1.2b": Dims(16, 2048, 8192, 32, 8, 128256, True, 500000, 32768),
    "3b": Dims(28, 3072, 8192, 24, 8, 128256, True, 500000, 32768),
    "8b": Dims(32, 4096, 14336, 32, 8, 128256, False, 500000, 32768),
}
MIXES = {"Q4_K_M": "Q4_K", "Q5_K_M": "Q5_K"}
ALIGNMENT = 32
POOL_BYTES = 4 << 20
SPREAD = 0.02  # standard deviation of a weight, roughly

# Where a block keeps its 16-bit scales: (offset, factor) with factor times SPREAD as value. A factor is one over the
# spread of the codes (and of the sub-scales, where a block has them); a minimum is negative or subtracted.
SCALES = {
    "Q4_0": [(0, 1 / 4.6)], "Q4_1": [(0, 1 / 4.6), (2, -7.5 / 4.6)],
    "Q5_0": [(0, 1 / 9.2)], "Q5_1": [(0, 1 / 9.2), (2, -15.5 / 9.2)], "Q8_0": [(0, 1 / 74)],
    "Q2_K": [(80, 1 / 8), (82, 1.5 / 8)], "Q3_K": [(108, 1 / 41)], "Q4_K": [(0, 1 / 143), (2, 7.5 / 143)],
    "Q5_K": [(0, 1 / 285), (2, 15.5 / 285)], "Q6_K": [(208, 1 / 1369)], "IQ4_NL": [(0, 1 / 70)],
    "IQ4_XS": [(0, 1 / 1260)],
}


def pool_of(name, random_source):
    """About POOL_BYTES of blocks."""
    _, elements, size = TYPES[name]
    count = POOL_BYTES // size
    if name in ("F32", "F16", "BF16"):
        values = [random_source.gauss(0, SPREAD) for _ in range(65536)] * (count // 65536)
        if name == "BF16":
            return b"".join(struct.pack("<f", v)[2:] for v in values)
        return struct.pack(f"<{len(values)}{'f' if name == 'F32' else 'e'}", *values)
    blocks = bytearray(random_source.randbytes(count * size))
    if name == "MXFP4":
        blocks[0::size] = bytes([118 + b % 3 for b in random_source.randbytes(count)])  # powers of two
    for offset, factor in SCALES.get(name, []):
        choice = [struct.pack("<e", SPREAD * factor * around) for around in (0.75, 0.9, 1.1, 1.25)]
        drawn = random_source.randbytes(count)
        blocks[offset::size] = bytes(choice[b % 4][0] for b in drawn)
        blocks[offset + 1::size] = bytes(choice[b % 4][1] for b in drawn)
    return bytes(blocks)


def more_bits(layer, layers):
    """The layers whose values and down projections a _M mix keeps in Q6_K: llama.cpp's src/llama-quant.cpp."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def head_type(dims, kind, base):
    """Quantisers keep the head finer than the rest."""
    if TYPES[base][1] == 1 or base in ("Q8_0", "Q6_K"):
        return base
    return "Q6_K" if dims.dim % 256 == 0 else "Q8_0"


def tensors_of_gpt2(dims, base, head):
    d = dims.dim
    yield "token_embd.weight", (d, dims.vocab), head
    yield "position_embd.weight", (d, dims.context), "F32"
    yield "output_norm.weight", (d,), "F32"
    yield "output_norm.bias", (d,), "F32"
    for i in range(dims.layers):
        for name, rows, cols in (("attn_qkv", 3 * d, d), ("attn_output", d, d), ("ffn_up", dims.ffn, d), ("ffn_down", d, dims.ffn)):
            yield f"blk.{i}.{name}.weight", (cols, rows), base
            yield f"blk.{i}.{name}.bias", (rows,), "F32"
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{i}.{name}.weight", (d,), "F32"
            yield f"blk.{i}.{name}.bias", (d,), "F32"


def tensors_of(dims, kind, head):
    """(name, extents with the row length first, type) of all tensors."""
    base = MIXES.get(kind, kind)
    head = head or head_type(dims, kind, base)
    if dims.arch == "gpt2":
        yield from tensors_of_gpt2(dims, base, head)
        return
    d, kv = dims.dim, dims.dim // dims.heads * dims.kv_heads
    yield "token_embd.weight", (d, dims.vocab), head if dims.tied else base
    yield "output_norm.weight", (d,), "F32"
    if not dims.tied:
        yield "output.weight", (d, dims.vocab), head
    for i in range(dims.layers):
        fine = "Q6_K" if kind in MIXES and more_bits(i, dims.layers) else base
        yield f"blk.{i}.attn_norm.weight", (d,), "F32"
        yield f"blk.{i}.attn_q.weight", (d, d), base
        yield f"blk.{i}.attn_k.weight", (d, kv), base
        yield f"blk.{i}.attn_v.weight", (d, kv), fine
        yield f"blk.{i}.attn_output.weight", (d, d), base
        yield f"blk.{i}.ffn_norm.weight", (d,), "F32"
        yield f"blk.{i}.ffn_gate.weight", (d, dims.ffn), base
        yield f"blk.{i}.ffn_up.weight", (d, dims.ffn), base
        yield f"blk.{i}.ffn_down.weight", (dims.ffn, d), fine


def byte_letters():
    """GPT-2 spells a byte as a printable letter: itself where it is one, else the next one from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]


def vocabulary(size):
    """Tokens, their kinds (1 normal, 3 control) and merges."""
    letters = byte_letters()
    lower = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pairs = [(a, b) for a in lower for b in lower][: max(0, min(676, size - 256 - 16))]
    tokens = letters + [a + b for a, b in pairs]
    number = 0
    while len(tokens) < size - 3:
        tokens.append(letters[ord(" ")] + f"w{number}")
        number += 1
    tokens += ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return tokens, [1] * (size - 3) + [3] * 3, [f"{a} {b}" for a, b in pairs]


CHAT_TEMPLATE = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
                 "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def metadata(name, dims):
    tokens, kinds, merges = vocabulary(dims.vocab)

    def key(name, kind, value):
        return string(name) + struct.pack("<I", kind) + value

    def count(name, value):
        return key(name, U32, struct.pack("<I", value))

    def strings(name, values):
        return key(name, ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(map(string, values)))

    end = dims.vocab - 3
    arch = dims.arch
    if arch == "gpt2":
        own = [key("gpt2.attention.layer_norm_epsilon", F32, struct.pack("<f", 1e-5))]
    else:
        own = [
            count("llama.attention.head_count_kv", dims.kv_heads),
            count("llama.rope.dimension_count", dims.dim // dims.heads),
            count("llama.vocab_size", dims.vocab),
            key("llama.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", 1e-5)),
            key("llama.rope.freq_base", F32, struct.pack("<f", dims.rope_base)),
        ]
    return [
        key("general.architecture", STRING, string(arch)),
        key("general.name", STRING, string(name)),
        count("general.alignment", ALIGNMENT),
        count(f"{arch}.block_count", dims.layers),
        count(f"{arch}.context_length", dims.context),
        count(f"{arch}.embedding_length", dims.dim),
        count(f"{arch}.feed_forward_length", dims.ffn),
        count(f"{arch}.attention.head_count", dims.heads),
        *own,
        key("tokenizer.ggml.model", STRING, string("gpt2")),
        key("tokenizer.ggml.pre", STRING, string("gpt-2")),
        strings("tokenizer.ggml.tokens", tokens),
        key("tokenizer.ggml.token_type", ARRAY, struct.pack(f"<IQ{len(kinds)}i", 5, len(kinds), *kinds)),
        strings("tokenizer.ggml.merges", merges),
        count("tokenizer.ggml.bos_token_id", end),
        count("tokenizer.ggml.eos_token_id", end + 2),
        key("tokenizer.ggml.add_bos_token", BOOL, b"\0"),
        key("tokenizer.chat_template", STRING, string(CHAT_TEMPLATE)),
    ]


def write_repeated(file, pool, start, size):
    """`size` bytes of the endless repetition of pool, from `start` on."""
    while size:
        piece = pool[start:start + size]
        file.write(piece)
        size -= len(piece)
        start = 0


def make_model(shape, kind, path, seed=1, head=None):
    """Writes the file under another name first: one that is there is whole."""
    dims = SHAPES[shape]
    tensors = list(tensors_of(dims, kind, head))
    for name, extents, tensor_type in tensors:
        if extents[0] % TYPES[tensor_type][1]:
            raise ValueError(f"{shape} cannot be {tensor_type}: rows of {extents[0]} in {name} are no multiple of "
                             f"{TYPES[tensor_type][1]}")
    keys = metadata(f"random {shape} {kind}", dims)
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys)) + b"".join(keys)
    offset, sizes = 0, []
    for name, extents, tensor_type in tensors:
        number, elements, block = TYPES[tensor_type]
        rows = extents[1] if len(extents) == 2 else 1
        size = extents[0] * rows // elements * block
        header += string(name) + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, number, offset)
        sizes.append(size)
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    pools = {}
    unfinished = Path(f"{path}.{os.getpid()}")
    with open(unfinished, "wb") as file:
        file.write(header + bytes(-len(header) % ALIGNMENT))
        for (name, extents, tensor_type), size in zip(tensors, sizes):
            if len(extents) == 1:
                file.write(struct.pack("<f", 1) * extents[0])
            else:
                if tensor_type not in pools:
                    pools[tensor_type] = pool_of(tensor_type, random.Random(f"{seed} {tensor_type}"))
                pool, block = pools[tensor_type], TYPES[tensor_type][2]
                start = random.Random(f"{seed} {name}").randrange(len(pool) // block) * block
                write_repeated(file, pool, start, size)
            file.write(bytes(-size % ALIGNMENT))
    unfinished.rename(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type", choices=[*TYPES, *MIXES])
    parser.add_argument("file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--head", choices=TYPES)
    arguments = parser.parse_args()
    try:
        make_model(arguments.shape, arguments.type, arguments.file, arguments.seed, arguments.head)
    except (ValueError, OSError) as problem:
        raise SystemExit(f"make_model: {problem}") from None


if __name__ == "__main__":
    main()
