#!/usr/bin/env python3
"""Writes vocabulary.gguf and the first seeds of each corpus: small inputs that are good, so that the targets get past the first check.

Run by hand when a format changes: python3 tests/fuzz/make_seeds.py. What the targets found stays in corpus/ beside them.
"""
import json
import struct
from pathlib import Path

HERE = Path(__file__).resolve().parent
U32, F32, STRING, ARRAY, I32 = 4, 6, 8, 9, 5


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    if kind == U32:
        data = struct.pack("<I", value)
    elif kind == F32:
        data = struct.pack("<f", value)
    elif kind == STRING:
        data = text(value)
    else:
        element, values = value
        packed = b"".join(text(v) if element == STRING else struct.pack("<i" if element == I32 else "<f", v) for v in values)
        kind, data = ARRAY, struct.pack("<IQ", element, len(values)) + packed
    return text(key) + struct.pack("<I", kind) + data


def byte_letters():
    """The letters that byte-level BPE writes bytes with."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in plain}
    for b in range(256):
        letters.setdefault(b, chr(256 + len([x for x in range(b) if x not in plain])))
    return [letters[b] for b in range(256)]


def gguf(entries, tensors=()):
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(entries)) + b"".join(entries)
    offset, data = 0, b""
    for name, extents, kind, payload in tensors:
        head += text(name) + struct.pack("<I", len(extents)) + b"".join(struct.pack("<Q", e) for e in extents)
        head += struct.pack("<IQ", kind, offset)
        data += payload + bytes(-len(payload) % 32)
        offset = len(data)
    return head + bytes(-len(head) % 32) + data


def vocabulary():
    letters = byte_letters()
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("\u0120", "w"), ("i", "n")]
    tokens = [*letters, *[a + b for a, b in merges], "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    kinds = [1] * (len(tokens) - 4) + [3] * 4
    return [
        entry("general.architecture", STRING, "llama"),
        entry("tokenizer.ggml.model", STRING, "gpt2"),
        entry("tokenizer.ggml.pre", STRING, "smollm"),
        entry("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        entry("tokenizer.ggml.token_type", ARRAY, (I32, kinds)),
        entry("tokenizer.ggml.merges", ARRAY, (STRING, [f"{a} {b}" for a, b in merges])),
        entry("tokenizer.ggml.bos_token_id", U32, len(tokens) - 4),
        entry("tokenizer.ggml.eos_token_id", U32, len(tokens) - 3),
    ], len(tokens)


def model():
    entries, vocab = vocabulary()
    numbers = {"block_count": 1, "context_length": 64, "embedding_length": 8, "feed_forward_length": 8, "attention.head_count": 2,
               "attention.head_count_kv": 1, "rope.dimension_count": 4, "vocab_size": vocab}  # fmt: skip
    entries += [entry(f"llama.{key}", U32, value) for key, value in numbers.items()]
    entries.append(entry("llama.attention.layer_norm_rms_epsilon", F32, 1e-5))
    shapes = {"token_embd.weight": (8, vocab), "output_norm.weight": (8,), "blk.0.attn_norm.weight": (8,), "blk.0.attn_q.weight": (8, 8),
              "blk.0.attn_k.weight": (8, 4), "blk.0.attn_v.weight": (8, 4), "blk.0.attn_output.weight": (8, 8), "blk.0.ffn_norm.weight": (8,),
              "blk.0.ffn_gate.weight": (8, 8), "blk.0.ffn_up.weight": (8, 8), "blk.0.ffn_down.weight": (8, 8)}  # fmt: skip
    tensors = []
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        f16 = len(shape) > 1
        tensors.append((name, shape, 1 if f16 else 0, bytes(count * (2 if f16 else 4))))
    return gguf(entries, tensors)


def unigram():
    tokens = ["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)], "\u2581", "a", "b", "ab", "\u2581ab"]
    kinds = [2, 3, 3] + [6] * 256 + [1] * 5
    return gguf([
        entry("general.architecture", STRING, "llama"), entry("tokenizer.ggml.model", STRING, "llama"),
        entry("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)), entry("tokenizer.ggml.scores", ARRAY, (F32, [-float(i) for i in range(len(tokens))])),
        entry("tokenizer.ggml.token_type", ARRAY, (I32, kinds)), entry("tokenizer.ggml.bos_token_id", U32, 1),
        entry("tokenizer.ggml.eos_token_id", U32, 2), entry("tokenizer.ggml.unknown_token_id", U32, 0),
    ])  # fmt: skip


def requests():
    chat = {"model": "default", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "hello \u00e9"}]}],
            "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "seed": 7, "n": 2, "stop": ["a", "b"], "stream": True,
            "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 3, "presence_penalty": 1, "frequency_penalty": -1,
            "logit_bias": {"5": -100}}  # fmt: skip
    completion = {"model": "default", "prompt": ["hello", "in"], "max_tokens": 1, "echo": True, "logprobs": 2, "best_of": 1, "suffix": None,
                  "ignore_eos": True, "stop_token_ids": [1, 2], "repetition_penalty": 1.1, "cache_salt": "x", "return_token_ids": True}  # fmt: skip
    ids = {"prompt": [[1, 2, 3], [4]], "min_tokens": 1, "user": "u"}
    return [b"\1" + json.dumps(chat).encode(), b"\0" + json.dumps(completion).encode(), b"\0" + json.dumps(ids).encode()]


def connections():
    return [
        b"\7POST /v1/completions HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        b"\3POST /x?y HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\nT: v\r\n\r\n",
        b"\1\r\nGET http://a/ HTTP/1.0\r\nAuthorization: Bearer x\r\n\r\n",
        b"\2OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nContent-Type: application/json\r\n\r\n",
    ]


def templates():
    chatml = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim + '<|im_end|>' }}{% endfor %}"
    return [chatml.encode(), b"{%- if messages[0].role == 'system' -%}{{ raise_exception('no') }}{%- endif -%}{{ strftime_now('%Y') }}",
            b"{% macro f(x) %}{{ x | tojson(indent=2) }}{% endmacro %}{{ f(messages) }}{% set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}",
            b"{{ messages | length }}{% generation %}x{% endgeneration %}\0{\"messages\": [1, {\"a\": null}]}"]  # fmt: skip


def varint(value):
    out = b""
    while True:
        out += bytes([value & 127 | (128 if value > 127 else 0)])
        value >>= 7
        if not value:
            return out


def field(number, value):
    """Of a protobuf message: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(*values):
    """Zeros are left out, as every writer of proto3 does."""
    return b"".join(field(number + 1, value) for number, value in enumerate(values) if value)


def message(kind, *values):
    return field(kind, fields(*values))


def frames():
    row = fields(1, 2, 0, 16, 1, 16, 0)
    return [message(1, 3, 0, 1, bytes([0, 1]), 5), message(2, 0, 2, b"/models/m.gguf", 0), message(3, 3, 7, 1, row), message(4),
            message(1, 2, 9, 4242, 1), message(5, 3, 7, 1500), message(6, 3, 7, b"no memory")]  # fmt: skip


def damages():
    """First byte, then (segment, offset, value)."""
    records = [struct.pack("<BII", 0, 256, 2), struct.pack("<BII", 1, 128, 0x00100011), struct.pack("<BII", 2, 64, 0xFFFFFFFF)]
    return [b"\0", b"\1" + records[0], b"\1" + b"".join(records), b"\1" + struct.pack("<BII", 0, 60, 0x7FFFFFFF)]


def safetensors():
    def file(header, data):
        content = json.dumps(header).encode()
        return struct.pack("<Q", len(content)) + content + bytes(data)

    def tensor(kind, shape, begin, end):
        return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}

    return [file({}, 0), file({"a": tensor("F32", [2], 0, 8)}, 8),
            file({"__metadata__": {"format": "pt"}, "b": tensor("BF16", [2, 3], 8, 20), "a": tensor("F32", [2], 0, 8),
                  "none": tensor("F16", [0], 20, 20), "one": tensor("I64", [], 20, 28)}, 28)]  # fmt: skip


def tokenizers():
    blank = "\u2581"
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": blank}
    end = [{"id": 6, "content": "<s>", "special": True}]
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}]}
    around = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}
    byte_level = {"added_tokens": end, "pre_tokenizer": digits, "post_processor": around, "settings": {"bos_token": "<s>"}, "eos_token_id": [6],
                  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b", ["ab", "ab"]]}}  # fmt: skip
    pieces = {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": blank}, replace]}, "added_tokens": end,
              "model": {"type": "BPE", "byte_fallback": True, "unk_token": "<s>", "vocab": {"<0x41>": 0, "a": 1, "b": 2, "ab": 3}, "merges": ["a b"]}}  # fmt: skip
    words = {"normalizer": {"type": "BertNormalizer", "lowercase": True}, "pre_tokenizer": {"type": "BertPreTokenizer"}, "added_tokens": end,
             "model": {"type": "WordPiece", "unk_token": "<s>", "continuing_subword_prefix": "##", "vocab": {"a": 0, "##b": 1}}}  # fmt: skip
    return [json.dumps(each).encode() for each in (byte_level, pieces, words)]


def write(target, seeds):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (folder / f"seed-{number}").write_bytes(seed)


def main():
    entries, _ = vocabulary()
    (HERE / "vocabulary.gguf").write_bytes(gguf(entries))
    write("gguf", [gguf([entry("general.architecture", STRING, "llama")]), model(), unigram()])
    write("json_request", requests())
    write("http", connections())
    write("messages", frames())
    write("template", templates())
    write("adopted", damages())
    write("safetensors", safetensors())
    write("tokenizer_json", tokenizers())


if __name__ == "__main__":
    main()
