"""A server that dies and comes again under one name, and clients that pick their streamed answers up where they lost them."""
import http.client
import json
import os
import threading
import time
from pathlib import Path

from quire_server import PATIENCE_S, SMOLLM2, Server, fresh_name, run_quire


class Phoenix:
    """A `quire serve` that is killed and started again by the same command; .server is the one of now."""

    def __init__(self, *options, model=SMOLLM2, name=None):
        self.name, self.model, self.options = name or fresh_name(), model, options
        self.server = None
        self.logs = ""
        self.start()

    def start(self, model=None, wait=True):
        self.server = Server(*self.options, model=model or self.model, name=self.name, wait=wait)
        return self.server

    def kill(self):
        process = self.server.process
        process.kill()
        process.wait()
        self.server.read_log(0.1)
        self.logs += self.server.log
        self.server.process.stderr.close()

    def again(self, **more):
        self.kill()
        return self.start(**more)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.server.close()
        run_quire("clear", "--name", self.name)

    def memory(self, segment):
        return Path(f"/dev/shm/quire.{os.getuid()}.{self.name}.{segment}")

    def poke(self, segment, at, bytes_):
        with open(self.memory(segment), "r+b") as file:
            file.seek(at)
            file.write(bytes_)

    def flip(self, segment, first, last, dice):
        path = self.memory(segment)
        at = dice.randrange(min(first, path.stat().st_size - 1), min(path.stat().st_size, last))
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << dice.randrange(8)]))


class Follower(threading.Thread):
    """One streamed answer, through as many connections as it takes."""

    def __init__(self, phoenix, path, body, patience_s=PATIENCE_S):
        super().__init__(daemon=True)
        self.phoenix, self.path, self.body, self.patience_s = phoenix, path, body, patience_s
        self.id = self.last = self.problem = None
        self.done = False
        self.choices = {}
        self.pickups = self.events = 0
        self.start()

    def after_event(self):
        """For those who do more than listen: the event is taken, also in the books of what was heard."""

    def choice(self, index):
        return self.choices.setdefault(index, {"text": "", "ids": [], "tail": [], "logprobs": [], "finish": None})

    def take(self, event):
        if "error" in event:
            raise AssertionError(str(event))
        self.id = event["id"]
        for c in event["choices"]:
            mine = self.choice(c["index"])
            mine["text"] += c.get("text") or c.get("delta", {}).get("content") or ""
            if c["finish_reason"]:
                mine["finish"], mine["tail"] = c["finish_reason"], c.get("token_ids", [])
                continue
            mine["ids"] += c.get("token_ids", [])
            logprobs = c.get("logprobs")
            if logprobs and "content" in logprobs:
                mine["logprobs"] += logprobs["content"]
            elif logprobs:
                mine["logprobs"] += list(zip(logprobs["tokens"], logprobs["token_logprobs"], map(str, logprobs["top_logprobs"]), logprobs["text_offset"]))

    def read(self, reply):
        event_id, data = None, None
        for line in reply:
            line = line.rstrip(b"\r\n")
            if line.startswith(b"id:"):
                event_id = line[3:].strip().decode()
            elif line.startswith(b"data:"):
                data = line[5:].strip()
            elif not line and data is not None:  # the whole event is here
                if data == b"[DONE]":
                    self.done = True
                    return
                self.take(json.loads(data))
                self.last = event_id or self.last
                self.events += event_id is not None
                event_id, data = None, None
                self.after_event()

    def connect(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.phoenix.server.port, timeout=PATIENCE_S)
        try:
            self.listen(connection)
        finally:
            connection.close()

    def listen(self, connection):
        if self.id is None:
            self.choices = {}
            connection.request("POST", self.path, json.dumps({**self.body, "stream": True}), {"Content-Type": "application/json"})
        else:
            headers = {"Accept": "text/event-stream"}
            if self.last is not None:
                headers["Last-Event-ID"] = self.last
            told = (self.last or "").split(",")
            for index in list(self.choices):
                if index >= len(told) or told[index] in ("", "-1"):
                    del self.choices[index]  # nothing of it was numbered: it comes again from its beginning
            connection.request("GET", f"{self.path}/{self.id}", headers=headers)
        reply = connection.getresponse()
        if reply.status == 503:
            return  # not ready yet
        if reply.status != 200:
            raise AssertionError(f"{reply.status} {reply.read()!r} for {self.id} behind {self.last}")
        self.pickups += self.id is not None
        with reply:
            self.read(reply)

    def run(self):
        deadline = time.monotonic() + self.patience_s
        while not self.done and self.problem is None:
            try:
                self.connect()
            except (OSError, http.client.HTTPException, ValueError):
                pass  # the server has died
            except AssertionError as problem:
                self.problem = str(problem)
            if time.monotonic() > deadline:
                self.problem = f"not done after {self.patience_s} s"
            time.sleep(0.005)  # between two looks at another process

    def result(self):
        self.join()
        if self.problem:
            raise AssertionError(self.problem)
        return self.choices
