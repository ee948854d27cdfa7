"""The peer: libllama by way of the pip package llama-cpp-python, in a venv of its own, and llama-server from the
sources that come with that same package. Both are compiled on this machine for its own processor (the package has no
wheel for it): minutes, once. pip keeps the wheel it built in its cache, so that `make clean` does not cost them again.
"""
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PACKAGE = "llama-cpp-python==0.3.36"


class Peer:
    def __init__(self, build):
        self.venv = build / "venv-bench"
        self.python = self.venv / "bin" / "python"
        self.sources = build / "peer"
        self.built_server = self.sources / "server" / "bin" / "llama-server"
        self.environment = {**os.environ, "CMAKE_BUILD_PARALLEL_LEVEL": str(len(os.sched_getaffinity(0)))}

    def has_library(self):
        return self.python.exists() and subprocess.run(
            [self.python, "-c", "import llama_cpp"], capture_output=True).returncode == 0

    def server_program(self):
        """Path of llama-server or None; QUIRE_PEER_SERVER names another one."""
        named = os.environ.get("QUIRE_PEER_SERVER")
        return Path(named) if named else self.built_server if self.built_server.exists() else None

    def install_library(self):
        if self.has_library():
            return
        print(f"peer: compiling {PACKAGE}, which takes minutes the first time", file=sys.stderr)
        if not self.python.exists():
            venv.create(self.venv, with_pip=True)
        subprocess.run([self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE],
                       check=True, env=self.environment, stdout=sys.stderr)

    def install_server(self):
        if self.server_program():
            return
        print("peer: compiling llama-server, which takes minutes the first time", file=sys.stderr)
        self.sources.mkdir(parents=True, exist_ok=True)
        archives = list(self.sources.glob("llama_cpp_python-*.tar.gz"))
        if not archives:
            subprocess.run([self.python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                            "--no-binary=:all:", "--dest", self.sources, PACKAGE], check=True, stdout=sys.stderr)
            archives = list(self.sources.glob("llama_cpp_python-*.tar.gz"))
        folder = self.sources / archives[0].name.removesuffix(".tar.gz")
        if not folder.exists():
            shutil.unpack_archive(archives[0], self.sources)
        out = self.sources / "server"
        options = ["-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF",
                   "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_SERVER=ON",
                   "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_BUILD_APP=OFF"]
        subprocess.run(["cmake", "-S", folder / "vendor" / "llama.cpp", "-B", out, *options], check=True,
                       stdout=sys.stderr)
        subprocess.run(["cmake", "--build", out, "--target", "llama-server"], check=True, env=self.environment,
                       stdout=sys.stderr)
