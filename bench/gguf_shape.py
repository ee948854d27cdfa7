"""What one decode step of a GGUF model must read and multiply, from the file's header alone.

weight_bytes  bytes of all matrices that a step reads whole: every 2-D tensor, the head among them (the embedding again
              when the file has no head of its own), and not the embedding table, of which a step reads single rows
macs          multiply-accumulates of those matrices for one token
head_macs     those of the head among them; of a prompt only the last token needs them
kv_bytes      bytes of keys and values of one position in 16-bit floats
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""
import struct
from dataclasses import dataclass, field

# name: (number, elements of a block, bytes of a block), as ggml-common.h lays them out
TYPES = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "BF16": (30, 1, 2),
    "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34),
    "Q2_K": (10, 256, 84), "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210), "IQ4_NL": (20, 32, 18), "IQ4_XS": (23, 256, 136), "MXFP4": (39, 32, 17),
}
BY_NUMBER = {number: (name, elements, size) for name, (number, elements, size) in TYPES.items()}

U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass
class Shape:
    layers: int
    dim: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    weight_bytes: int = 0
    macs: int = 0
    head_macs: int = 0
    types: dict = field(default_factory=dict)  # type name: share of weight_bytes

    @property
    def kv_bytes(self):
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim

    def kv_macs(self, context):
        """Of attention, for one token that sees `context` positions, had every query head its own kv head."""
        return 2 * self.layers * self.dim * context


class Reader:
    def __init__(self, file):
        self.file = file

    def unpack(self, letters):
        size = struct.calcsize("<" + letters)
        values = struct.unpack("<" + letters, self.file.read(size))
        return values if len(values) > 1 else values[0]

    def string(self):
        return self.file.read(self.unpack("Q"))

    def value(self, kind):
        """A value; of an array only its length."""
        if kind == STRING:
            return self.string().decode("utf-8", "replace")
        if kind != ARRAY:
            return self.unpack(SCALARS[kind])
        element, count = self.unpack("IQ")
        if element == STRING:
            for _ in range(count):
                self.string()
        else:
            self.file.seek(count * struct.calcsize(SCALARS[element]), 1)
        return count


def read_shape(path):
    with open(path, "rb") as file:
        reader = Reader(file)
        magic, version = reader.unpack("4sI")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"{path} is no GGUF file of version 2 or 3")
        tensors, keys = reader.unpack("QQ")
        meta = {}
        for _ in range(keys):
            name = reader.string().decode()
            meta[name] = reader.value(reader.unpack("I"))
        arch = meta["general.architecture"]
        heads = meta[f"{arch}.attention.head_count"]
        shape = Shape(layers=meta[f"{arch}.block_count"], dim=meta[f"{arch}.embedding_length"],
                      kv_heads=meta.get(f"{arch}.attention.head_count_kv", heads),
                      head_dim=meta.get(f"{arch}.attention.key_length", meta[f"{arch}.embedding_length"] // heads),
                      vocab=meta.get("tokenizer.ggml.tokens", 0), context=meta[f"{arch}.context_length"])
        matrices = {}
        for _ in range(tensors):
            name = reader.string().decode()
            extents = [reader.unpack("Q") for _ in range(reader.unpack("I"))]
            kind, _offset = reader.unpack("IQ")
            if len(extents) == 2:
                matrices[name] = (extents[0] * extents[1], kind)
        if "output.weight" in matrices:
            matrices.pop("token_embd.weight")
        for tensor, (elements, kind) in matrices.items():
            name, block, size = BY_NUMBER[kind]
            shape.weight_bytes += elements // block * size
            shape.macs += elements
            if tensor in ("output.weight", "token_embd.weight"):
                shape.head_macs = elements
            shape.types[name] = shape.types.get(name, 0) + elements // block * size
        shape.types = {name: round(size / shape.weight_bytes, 3) for name, size in shape.types.items()}
        return shape
