"""A server under test: started on a port that the system gives, under a name of its own, and gone with its memory at the end."""
import http.client
import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(os.environ.get("QUIRE_ROOT", Path(__file__).resolve().parent.parent.parent))
BUILD = Path(os.environ.get("QUIRE_BUILD", ROOT / "build"))
QUIRE = BUILD / "quire"
SMOLLM2 = ROOT / "models/smollm2.gguf"
LONG = bool(os.environ.get("QUIRE_LONG"))
PATIENCE_S = 120  # the longest that anything may take; the machine may be busy with other things

counter = itertools.count()


def shared_folder():
    """The fixtures and black-box checks beside the tree, None where there are none."""
    folder = Path(os.environ.get("QUIRE_SHARED", ROOT.parent / "shared"))
    return folder if folder.is_dir() else None


def fresh_name():
    return f"suite-{os.getpid()}-{next(counter)}"


def wait_until(what, condition, patience_s=PATIENCE_S):
    """Asks again and again until the condition gives something true, and gives that."""
    deadline = time.monotonic() + patience_s
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{patience_s} s have passed without this: {what}")
        time.sleep(0.01)  # between two looks at another process


def run_quire(*words, input=None, timeout=PATIENCE_S, **more):
    """Runs a command of quire to its end."""
    return subprocess.run([QUIRE, *map(str, words)], input=input, capture_output=True, timeout=timeout, **more)


class Server:
    """One `quire serve`. Its log is read as it comes and kept in .log."""

    def __init__(self, *options, model=SMOLLM2, name=None, wait=True, program=None):
        self.name = name or fresh_name()
        self.log = ""
        command = [program or QUIRE, "serve", "-m", model, "--port", "0", "--name", self.name, *options]
        self.process = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        os.set_blocking(self.process.stderr.fileno(), False)
        try:
            self.port = int(self.wait_log(r"listening on http://[^ ]*:(\d+)/")[1])
            if wait:
                self.wait_log(r" ready after ")
        except BaseException:
            self.kill()
            raise

    # ---- its log

    def read_log(self, wait_s=0.0):
        """Takes what it has said; False when it can say no more."""
        if not select.select([self.process.stderr], [], [], wait_s)[0]:
            return True
        piece = self.process.stderr.read()
        self.log += (piece or b"").decode("utf-8", "replace")
        return piece is None or piece != b""

    def wait_log(self, pattern, patience_s=PATIENCE_S):
        deadline = time.monotonic() + patience_s
        while not (match := re.search(pattern, self.log)):
            goes_on = self.read_log(0.1)
            if not goes_on and not re.search(pattern, self.log):
                raise AssertionError(f"the server ended without saying {pattern!r}:\n{self.log}")
            if time.monotonic() > deadline:
                raise AssertionError(f"the server did not say {pattern!r} in {patience_s} s:\n{self.log}")
        return match

    # ---- its end

    def end(self, signal_number=signal.SIGTERM, patience_s=PATIENCE_S):
        """Sends a signal and gives the exit status."""
        self.process.send_signal(signal_number)
        return self.wait(patience_s)

    def wait(self, patience_s=PATIENCE_S):
        deadline = time.monotonic() + patience_s
        while self.process.poll() is None:
            self.read_log(0.05)  # it must never wait for us
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the server did not end in {patience_s} s:\n{self.log}")
        while self.read_log() and select.select([self.process.stderr], [], [], 0)[0]:
            pass
        return self.process.returncode

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        run_quire("clear", "--name", self.name)

    def close(self):
        try:
            if self.process.poll() is None:
                self.end(signal.SIGTERM)
        finally:
            self.kill()
            self.process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # ---- plain HTTP

    def connect(self, timeout=PATIENCE_S):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method, path, body=None, headers=None):
        """(status, headers, body): the body as JSON where it is JSON."""
        connection = self.connect()
        try:
            data = json.dumps(body) if body is not None and not isinstance(body, (bytes, str)) else body
            sent = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method, path, data, {**sent, **(headers or {})})
            reply = connection.getresponse()
            text = reply.read()
            is_json = (reply.getheader("Content-Type") or "").startswith("application/json")
            return reply.status, reply.headers, json.loads(text) if is_json and text else text
        finally:
            connection.close()

    def get(self, path, **more):
        return self.ask("GET", path, **more)

    def post(self, path, body, **more):
        return self.ask("POST", path, body, **more)

    def state(self):
        return self.get("/quire/state")[2]

    def sessions(self):
        return self.state()["sessions"]

    def open_stream(self, path, body, headers=None):
        return Stream(self, path, body, headers)


class Stream:
    """A streamed answer, event by event, whose client can leave at any moment."""

    def __init__(self, server, path, body, headers=None):
        self.connection = server.connect()
        data = json.dumps({**body, "stream": True})
        self.connection.request("POST", path, data, {"Content-Type": "application/json", **(headers or {})})
        self.reply = self.connection.getresponse()
        self.status = self.reply.status
        self.comments = 0

    def events(self):
        """The JSON of each event until [DONE]."""
        for line in self.reply:
            if line.startswith(b":"):
                self.comments += 1
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                yield json.loads(data.decode("utf-8"))
        raise AssertionError("the stream ended without [DONE]")

    def text(self):
        pieces = []
        for event in self.events():
            for choice in event["choices"]:
                pieces.append(choice.get("text") or choice.get("delta", {}).get("content") or "")
        return "".join(pieces)

    def leave(self):
        """Closes with a reset, as a killed client does."""
        raw = self.connection.sock or self.reply.fp.raw._sock
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def close(self):
        self.reply.close()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
