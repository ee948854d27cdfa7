"""The fault board of base/fault.h: a file that all processes of a server map and that is written here while they run."""
import mmap
import os
import re
import struct
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BOARD_BYTES, ARMS, ARM_BYTES, FIRED_AT = 4096, 4, 64, 32
ALWAYS = 1 << 30  # passings, more than there ever are
ACTIONS = ("kill", "stop", "abort", "segv", "exit", "spin", "forbidden", "fail")
POINT = re.compile(r'^X\(\w+, "(?P<name>[\w.]+)", (?P<fails>FAILS|PASSES), "(?P<where>.*)"\)$', re.M)
POINTS = [match.groupdict() for match in POINT.finditer((ROOT / "base/faults.def").read_text())]
NAMES = [point["name"] for point in POINTS]


def points_of(process):
    return [point for point in POINTS if point["name"].startswith(process + ".")]


class Board:
    """Arms are numbered; point 0 means not armed, and is written last."""

    def __init__(self):
        with tempfile.NamedTemporaryFile(prefix="quire-faults-", delete=False) as file:
            file.write(bytes(BOARD_BYTES))
            self.path = file.name
        fd = os.open(self.path, os.O_RDWR)
        self.bytes = mmap.mmap(fd, BOARD_BYTES)
        os.close(fd)

    def arm(self, number, point, action, nth=1, times=1, after=None):
        """`after`: an arm that must have fired before passings of this one count."""
        self.disarm(number)
        fields = (ACTIONS.index(action), 0, 0, 0 if after is None else after + 1, nth, times, 0, 0)
        at = number * ARM_BYTES
        struct.pack_into("=8I", self.bytes, at + 4, *fields)
        struct.pack_into("=I", self.bytes, at, NAMES.index(point) + 1)

    def disarm(self, number):
        struct.pack_into("=I", self.bytes, number * ARM_BYTES, 0)

    def fired(self, number):
        return struct.unpack_from("=I", self.bytes, number * ARM_BYTES + FIRED_AT)[0]

    def passed(self, point):
        return struct.unpack_from("=Q", self.bytes, ARMS * ARM_BYTES + 8 * NAMES.index(point))[0]

    def close(self):
        self.bytes.close()
        os.unlink(self.path)
