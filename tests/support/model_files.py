"""Reads GGUF files and reads and writes safetensors files, as far as tests need it; nothing beyond Python's own library."""
import json
import struct

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
ELEMENT_BYTES = {0: 4, 1: 2, 30: 2}  # F32, F16, BF16


class Gguf:
    """keys: name -> value; tensors: name -> (shape, outermost first, type, bytes)."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = file.read()
        self.at = 0
        magic, version, tensors, keys = self.take("<4sIQQ")
        assert magic == b"GGUF" and version in (2, 3), (magic, version)
        self.keys = {}
        for _ in range(keys):
            name = self.string().decode()
            self.keys[name] = self.value(self.take("<I")[0])
        infos = []
        for _ in range(tensors):
            name = self.string().decode()
            dims = self.take("<I")[0]
            infos.append((name, self.take(f"<{dims}Q"), *self.take("<IQ")))
        data = -(-self.at // 32) * 32
        self.tensors = {}
        for name, extents, kind, offset in infos:
            size = ELEMENT_BYTES.get(kind, 0)
            for extent in extents:
                size *= extent
            self.tensors[name] = (extents[::-1], kind, self.bytes[data + offset : data + offset + size])

    def take(self, form):
        values = struct.unpack_from(form, self.bytes, self.at)
        self.at += struct.calcsize(form)
        return values

    def string(self):
        length = self.take("<Q")[0]
        self.at += length
        return self.bytes[self.at - length : self.at]

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            element, count = self.take("<IQ")
            if element == STRING:
                return [self.string() for _ in range(count)]
            return list(self.take(f"<{count}{SCALARS[element]}"))
        return self.take("<" + SCALARS[kind])[0]


def safetensors(path):
    """(header, data) of a file."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def pack_safetensors(path, tensors):
    """tensors: name -> (shape, bytes of F32)."""
    header, data = {}, b""
    for name, (shape, content) in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    write_safetensors(path, header, data)
