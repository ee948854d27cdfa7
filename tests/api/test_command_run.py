"""quire run from the outside: words on stdout, everything else on stderr, nothing left behind."""
import http.server
import json
import os
import pty
import select
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from quire_server import PATIENCE_S, QUIRE, SMOLLM2, Server, run_quire, wait_until

GREEDY = ("--temperature", "0", "--max-tokens", "12")
server = None


def setUpModule():
    global server
    if not SMOLLM2.exists():
        raise unittest.SkipTest(f"{SMOLLM2} is not here: `make model` gets it")
    server = Server("--workers", "1", "--kv-memory", "128M", "--ctx", "2048")


def tearDownModule():
    if server:
        server.close()


def url():
    return f"http://127.0.0.1:{server.port}"


def left_behind(pid):
    return list(Path("/dev/shm").glob(f"quire.*.run-{pid}.*"))


class OnePrompt(unittest.TestCase):
    def served(self, prompt, **fields):
        body = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 12, **fields}
        return server.post("/v1/chat/completions", body)[2]["choices"][0]["message"]["content"]

    def test_a_private_server_answers_and_is_gone(self):
        words = [QUIRE, "run", "-m", SMOLLM2, "Hello", "--workers", "1", "--kv-memory", "64M", *GREEDY]
        process = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        out, error = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, 0, error)
        self.assertEqual(out.decode(), self.served("Hello") + "\n")
        self.assertNotIn(b"listening", error)
        self.assertEqual(left_behind(process.pid), [])

    def test_a_running_server_answers_the_same(self):
        done = run_quire("run", "--connect", url(), "Hello", *GREEDY)
        self.assertEqual((done.returncode, done.stdout.decode(), done.stderr), (0, self.served("Hello") + "\n", b""))

    def test_the_prompt_may_come_from_stdin(self):
        done = run_quire("run", "--connect", url() + "/v1/", *GREEDY, input=b"Hello\n")
        self.assertEqual((done.returncode, done.stdout.decode()), (0, self.served("Hello") + "\n"))
        self.assertEqual(run_quire("run", "--connect", url(), input=b"").returncode, 1)

    def test_raw_text_is_continued(self):
        want = server.post("/v1/completions", {"prompt": "The sky is", "temperature": 0, "max_tokens": 12})[2]["choices"][0]["text"]
        done = run_quire("run", "--connect", url(), "--raw", "The sky is", *GREEDY)
        self.assertEqual(done.stdout.decode().rstrip("\n"), want.rstrip("\n"))

    def test_system_text_and_seed_reach_the_model(self):
        words = ("run", "--connect", url(), "--seed", "5", "--temperature=1", "--top-p", "0.9", "--max-tokens", "24", "Tell me a story.")
        first, again, told = run_quire(*words), run_quire(*words), run_quire(*words, "--system", "You are a pirate.")
        self.assertEqual(first.stdout, again.stdout)
        self.assertNotEqual(first.stdout, told.stdout)

    def test_a_prompt_that_begins_with_a_dash_goes_behind_two(self):
        done = run_quire("run", "--connect", url(), *GREEDY, "--", "-5 + 3 =")
        self.assertEqual((done.returncode, done.stdout.decode()), (0, self.served("-5 + 3 =") + "\n"))

    def test_a_model_without_a_chat_template_and_without_turns_continues_the_text(self):
        with tempfile.TemporaryDirectory() as folder:
            mute = Path(folder, "mute.gguf")
            mute.write_bytes(SMOLLM2.read_bytes().replace(b"tokenizer.chat_template", b"tokenizer.chat_tEmplate", 1)
                             .replace(b"<|im_start|>", b"<|im_stark|>"))
            done = run_quire("run", "-m", mute, "The sky is", "--workers", "1", "--kv-memory", "64M", *GREEDY)
        want = server.post("/v1/completions", {"prompt": "The sky is", "temperature": 0, "max_tokens": 12})[2]["choices"][0]["text"]
        self.assertEqual((done.returncode, done.stdout.decode().rstrip("\n")), (0, want.rstrip("\n")), done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn(b"chat template", done.stderr)


class Refusals(unittest.TestCase):
    def fails(self, code, *words, **more):
        done = run_quire("run", *words, **more)
        self.assertEqual((done.returncode, done.stdout), (code, b""), done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        return done.stderr.decode()

    def test_wrong_usage_is_2(self):
        self.fails(2, "hello")
        self.fails(2, "-m", SMOLLM2, "two", "words")
        self.fails(2, "-m", SMOLLM2, "--temperature", "hot", "x")
        self.fails(2, "-m", SMOLLM2, "--max-tokens", "1.5", "x")
        self.fails(2, "-m", SMOLLM2, "--no-such-option", "x")
        self.fails(2, "--connect", "127.0.0.1:8080", "x")
        self.fails(2, "--connect", "https://127.0.0.1:8080", "x")
        self.assertEqual(run_quire("run", "--help").returncode, 0)

    def test_a_model_that_is_not_there_is_1_and_named(self):
        self.assertIn("no-such.gguf", self.fails(1, "-m", "/tmp/no-such.gguf", "x"))

    def test_a_server_that_is_not_there_is_1(self):
        self.assertIn("127.0.0.1:1", self.fails(1, "--connect", "http://127.0.0.1:1", "x"))

    def test_what_the_server_refuses_is_told_in_its_words(self):
        self.assertIn("temperature", self.fails(1, "--connect", url(), "--temperature", "-1", "x"))


class Interrupted(unittest.TestCase):
    def test_a_killed_command_takes_its_server_along(self):
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            words = [QUIRE, "run", "-m", SMOLLM2, "--raw", "Once", "--workers", "1", "--kv-memory", "64M", "--max-tokens", "2000"]
            process = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            with process.stdout:
                process.stdout.read(1)
                process.send_signal(number)
                self.assertNotEqual(process.wait(PATIENCE_S), 0)
            wait_until("its server has removed its memory", lambda: not left_behind(process.pid), patience_s=60)


class Terminal(unittest.TestCase):
    """quire run on a terminal of its own."""

    words = ()

    def setUp(self):
        server_url = self.url()
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execv(QUIRE, ["quire", "run", "--connect", server_url, "--temperature", "0", "--max-tokens", "400", *self.words])
        self.seen = ""
        self.status = None
        self.addCleanup(self.close)

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.terminal)

    def read_until(self, end):
        """What stands on the terminal up to `end`; takes it."""
        deadline = time.monotonic() + PATIENCE_S
        while end not in self.seen:
            if not select.select([self.terminal], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise AssertionError(f"no {end!r} in {PATIENCE_S} s: {self.seen!r}")
            try:
                self.seen += os.read(self.terminal, 4096).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(f"it ended without {end!r}: {self.seen!r}") from None
        before, self.seen = self.seen.split(end, 1)
        return before

    def say(self, line):
        os.write(self.terminal, line.encode() + b"\n")
        self.read_until("\r\n")  # the terminal's echo

    def ends(self):
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


class Chat(Terminal):
    def url(self):
        return url()

    def test_a_chat_remembers_forgets_and_ends(self):
        self.read_until("> ")
        self.say("My name is Ada. Answer in one short sentence.")
        first = self.read_until("> ")
        self.assertRegex(first, r"\[\d+ tokens, [\d.]+ tokens/s")
        said = first.split("\r\n[")[0]
        self.say("What is my name?")
        both = self.read_until("> ").split("\r\n[")[0]
        messages = [{"role": "user", "content": "My name is Ada. Answer in one short sentence."}, {"role": "assistant", "content": said.replace("\r\n", "\n")},
                    {"role": "user", "content": "What is my name?"}]  # fmt: skip
        self.assertEqual(both.replace("\r\n", "\n"), self.served(messages))
        self.say("/clear")
        self.read_until("> ")
        self.say("What is my name?")
        self.assertEqual(self.read_until("> ").split("\r\n[")[0].replace("\r\n", "\n"), self.served(messages[2:]))
        self.say("/help")
        self.assertIn("/system", self.read_until("> "))
        self.say("/bye")
        self.assertEqual(self.ends(), 0)

    def served(self, messages):
        body = {"messages": messages, "temperature": 0, "max_tokens": 400}
        return server.post("/v1/chat/completions", body)[2]["choices"][0]["message"]["content"].rstrip("\n")

    def test_it_ends_by_the_words_that_others_use_and_says_when_it_knows_none(self):
        self.read_until("> ")
        self.say("/frobnicate")
        self.assertIn("no such command", self.read_until("> "))
        self.say("/quit")
        self.assertEqual(self.ends(), 0)

    def test_ctrl_c_stops_the_answer_and_then_the_chat(self):
        self.read_until("> ")
        self.say("Count from one to two hundred, in words.")
        wait_until("it is being answered", lambda: server.sessions())
        os.write(self.terminal, b"\x03")
        self.read_until("[stopped]")
        self.read_until("> ")
        wait_until("the server has stopped, too", lambda: not server.sessions(), patience_s=10)
        os.write(self.terminal, b"\x03")
        self.assertEqual(self.ends(), 0)


class Hostile(http.server.BaseHTTPRequestHandler):
    """A server whose model says what commands a terminal: in ASCII's control characters and in C1's."""

    said = "before\x1b[31m\u009b31m\x07after \u00e4"

    def do_GET(self):
        self.answer("application/json", json.dumps({"chat_template": "x"}))

    def do_POST(self):
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        if b"refuse" in asked:
            self.answer("application/json", json.dumps({"error": {"message": self.said}}), 400)
            return
        event = {"choices": [{"index": 0, "delta": {"content": self.said}, "finish_reason": None}]}
        self.answer("text/event-stream", f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n")

    def answer(self, kind, text, status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words):
        pass


class AtHostile(Terminal):
    def url(self):
        hostile = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
        self.addCleanup(hostile.server_close)
        threading.Thread(target=hostile.serve_forever, daemon=True).start()
        self.addCleanup(hostile.shutdown)
        return f"http://127.0.0.1:{hostile.server_port}"


class HostileWords(AtHostile):
    words = ("hello",)

    def test_no_control_character_of_the_model_reaches_the_terminal(self):
        self.assertEqual(self.read_until("after \u00e4"), "before?[31m?31m?")
        self.assertEqual(self.ends(), 0)


class HostileRefusal(AtHostile):
    words = ("refuse",)

    def test_no_control_character_of_a_refusal_reaches_the_terminal(self):
        self.assertTrue(self.read_until("after \u00e4").endswith("before [31m  31m "))
        self.assertEqual(self.ends(), 1)
