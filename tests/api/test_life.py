"""The life of a server: loading, draining, names and ports that are taken, what a killed one leaves."""
import json
import os
import resource
import shutil
import signal
import socket
import tempfile
import unittest
from pathlib import Path

from quire_server import QUIRE, SMOLLM2, Server, fresh_name, run_quire, wait_until

TEXT = "/v1/completions"
TALK = {"prompt": "Once upon a time", "max_tokens": 300, "ignore_eos": True, "temperature": 0}
SMALL = ("--workers", "1", "--kv-memory", "64M", "--ctx", "1024")


def setUpModule():
    if not SMOLLM2.exists():
        raise unittest.SkipTest(f"{SMOLLM2} is not here: `make model` gets it")


def segments(name):
    return sorted(path.name for path in Path("/dev/shm").glob(f"quire.{os.getuid()}.{name}.*"))


class Loading(unittest.TestCase):
    def test_health_says_that_the_model_is_being_loaded(self):
        with Server(*SMALL, wait=False) as server:
            seen = []

            def ready():
                seen.append(server.get("/health"))
                return seen[-1][0] == 200

            wait_until("the server is ready", ready)
            self.assertEqual(seen[0][0], 503, "the port was to open before the weights are there")
            self.assertIn("load", seen[0][2]["error"]["message"])
            self.assertEqual({status for status, _, _ in seen}, {200, 503})

    def test_a_request_while_loading_is_told_to_come_back(self):
        with Server(*SMALL, wait=False) as server:
            status, headers, _ = server.post(TEXT, {"prompt": "x"})
            self.assertEqual(status, 503)
            self.assertTrue(headers["Retry-After"])
            self.assertEqual(server.get("/quire/state")[0], 200)

    def test_a_bad_model_ends_the_server_before_its_port_opens(self):
        files = {"no-model.gguf": b"GGUF, but no model at all", "empty.gguf": b"", "short.gguf": SMOLLM2.read_bytes()[: 1 << 20]}
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder, name)
                path.write_bytes(content)
                self.refused(["-m", path], name)
            self.refused(["-m", Path(folder, "not-there.gguf")], "not-there.gguf")

    def refused(self, options, word):
        name = fresh_name()
        done = run_quire("serve", *options, "--port", "0", "--name", name)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertNotIn(b"listening", done.stderr)
        self.assertIn(word.encode(), done.stderr)
        self.assertEqual(segments(name), [])

    def test_wrong_options_are_wrong_usage(self):
        for options in (["--no-such"], ["--port", "70000"], ["--workers", "many"], ["--max-body"], ["one", "two"]):
            done = run_quire("serve", "-m", SMOLLM2, *options)
            self.assertEqual(done.returncode, 2, options)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_the_address_of_ipv6_is_one_that_can_be_pasted(self):
        if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
            self.skipTest("needs IPv6")
        with Server(*SMALL, "--host", "::1") as server:
            self.assertRegex(server.log, r"listening on http://\[::1\]:\d+/, 1 worker in 1 group\n")

    def test_who_looks_closely_sees_why_a_request_was_refused(self):
        with Server(*SMALL, "--log-level", "debug") as server:
            server.post(TEXT, {"prompt": "x", "max_tokens": -3})
            server.wait_log(r"debug 127.0.0.1 is answered 400: max_tokens must be at least 0, not -3")

    def test_others_are_let_in_only_with_keys(self):
        done = run_quire("serve", "-m", SMOLLM2, "--host", "0.0.0.0", "--port", "0", "--name", fresh_name())
        self.assertEqual(done.returncode, 2)  # wrong usage
        self.assertIn(b"--api-key-file", done.stderr)


class Descriptors(unittest.TestCase):
    def test_a_low_soft_limit_of_descriptors_is_raised(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < 512:
            self.skipTest(f"no more than {hard} descriptors are allowed here")
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        try:
            server = Server(*SMALL)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with server:
            open_ones = [server.connect() for _ in range(200)]
            for connection in open_ones:
                connection.request("GET", "/health")
                self.assertEqual(connection.getresponse().read(), b'{"status":"ok"}')
            for connection in open_ones:
                connection.close()


class Upgraded(unittest.TestCase):
    """The programs on the disk are replaced while the server runs."""

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="quire-upgraded-"))
        self.addCleanup(shutil.rmtree, self.folder)
        for program in ("quire", "quire-worker"):
            shutil.copy(QUIRE.with_name(program), self.folder)

    def killed(self, server, change):
        """What a stream says whose worker is killed behind the change; every rank changes its process."""
        with server.open_stream(TEXT, TALK) as stream:
            events = stream.events()
            text = next(events)["choices"][0]["text"]
            change()
            for process in (server.state()["spares"] + server.state()["workers"]):
                os.kill(process["pid"], signal.SIGKILL)
            return text + "".join(event["choices"][0]["text"] for event in events if event["choices"])

    def test_workers_that_take_the_place_of_the_dead_are_of_the_build_that_was_started(self):
        worker = self.folder / "quire-worker"

        def replace():
            worker.unlink()
            worker.write_text("#!/bin/sh\nexit 1\n")
            worker.chmod(0o755)

        with Server(*SMALL, program=self.folder / "quire") as server:
            want = server.post(TEXT, TALK)[2]["choices"][0]["text"]
            self.assertEqual(self.killed(server, replace), want)
            self.assertEqual(self.killed(server, worker.unlink), want)
            self.assertNotIn(" error ", server.log)
            self.assertEqual(server.end(), 0)


class Taken(unittest.TestCase):
    def test_a_second_server_of_one_name_says_who_holds_it(self):
        with Server(*SMALL) as server:
            done = run_quire("serve", "-m", SMOLLM2, *SMALL, "--port", "0", "--name", server.name)
            self.assertEqual(done.returncode, 1)
            self.assertIn(str(server.process.pid).encode(), done.stderr)
            self.assertIn(server.name.encode(), done.stderr)
            self.assertEqual(server.get("/health")[0], 200)
            self.assertEqual(server.post(TEXT, {"prompt": "x", "max_tokens": 2})[0], 200)

    def test_a_port_in_use_ends_the_server(self):
        name = fresh_name()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = run_quire("serve", "-m", SMOLLM2, *SMALL, "--port", port, "--name", name)
        self.assertEqual(done.returncode, 1)
        self.assertIn(str(port).encode(), done.stderr)
        self.assertEqual(segments(name), [])


class Draining(unittest.TestCase):
    def test_a_running_stream_finishes_and_a_new_request_does_not_begin(self):
        with Server(*SMALL) as server:
            want = server.post(TEXT, TALK)[2]["choices"][0]["text"]
            late = server.connect()
            late.request("GET", "/health")
            late.getresponse().read()
            with server.open_stream(TEXT, TALK) as stream:
                events = stream.events()
                text = next(events)["choices"][0]["text"]
                server.process.send_signal(signal.SIGTERM)
                server.wait_log("draining")
                late.request("POST", TEXT, json.dumps(TALK), {"Content-Type": "application/json"})
                refused = late.getresponse()
                self.assertEqual(refused.status, 503)
                refused.read()
                health = server.connect()
                health.request("GET", "/health")
                self.assertEqual(health.getresponse().status, 503)
                text += "".join(event["choices"][0]["text"] for event in events if event["choices"])
                self.assertEqual(text, want)
            self.assertEqual(server.wait(), 0)
            self.assertEqual(segments(server.name), [])

    def test_an_answer_that_was_left_is_not_begun_again(self):
        with Server(*SMALL) as server, server.open_stream(TEXT, {**TALK, "max_tokens": 900}) as running:
            next(running.events())
            with server.open_stream(TEXT, {**TALK, "max_tokens": 900}) as left:
                answer = next(left.events())["id"]
                left.leave()
            wait_until("it has stopped", lambda: len(server.sessions()) == 1)
            server.process.send_signal(signal.SIGTERM)
            server.wait_log("draining")
            status, _, body = server.get(f"{TEXT}/{answer}", headers={"Accept": "text/event-stream"})
            self.assertEqual((status, body["error"]["type"]), (503, "unavailable_error"))
            status, _, body = server.get(f"{TEXT}/{answer}")  # what there is of it
            self.assertEqual((status, body["id"], body["choices"][0]["finish_reason"]), (200, answer, None))
            running.leave()
            self.assertEqual(server.wait(), 0)

    def test_what_does_not_finish_in_time_is_cut(self):
        with Server(*SMALL, "--drain", "1") as server:
            with server.open_stream(TEXT, {**TALK, "max_tokens": 900}) as stream:
                next(stream.events())
                self.assertEqual(server.end(), 0)
            self.assertEqual(segments(server.name), [])

    def test_an_idle_server_ends_at_once_on_either_signal(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with Server(*SMALL) as server:
                self.assertEqual(server.end(number, patience_s=30), 0)
                self.assertEqual(segments(server.name), [])


class Killed(unittest.TestCase):
    def kill(self, server):
        """SIGKILL of the coordinator; its workers must follow it."""
        workers = [worker["pid"] for worker in server.state()["workers"]]
        server.process.kill()
        server.process.wait()
        wait_until("its workers have ended", lambda: not any(is_alive(pid) for pid in workers), patience_s=20)

    def test_the_next_start_takes_over_what_is_left_and_says_so_once(self):
        server = Server(*SMALL)
        self.addCleanup(server.close)
        answer = server.post(TEXT, {"prompt": "The sky is", "temperature": 0})[2]
        want = answer["choices"][0]["text"]
        self.kill(server)
        self.assertTrue(segments(server.name))
        with Server(*SMALL, name=server.name) as again:
            told = [line for line in again.log.splitlines() if "took over" in line or "dropped" in line or "removed" in line]
            self.assertEqual((len(told), told[0].count("weights whole")), (1, 1), again.log)
            self.assertEqual(again.get(f"{TEXT}/{answer['id']}")[2]["choices"], answer["choices"])
            self.assertEqual(again.post(TEXT, {"prompt": "The sky is", "temperature": 0})[2]["choices"][0]["text"], want)
        self.assertEqual(segments(server.name), [])

    def test_what_is_left_can_be_looked_at_and_cleared(self):
        server = Server(*SMALL)
        self.addCleanup(server.close)
        held = run_quire("clear", "--name", server.name)
        self.assertEqual(held.returncode, 1)
        self.assertIn(str(server.process.pid).encode(), held.stderr)
        live = json.loads(run_quire("inspect", "--name", server.name, "--json").stdout)
        self.assertEqual((live["running"], live["holder_pid"]), (1, server.process.pid))
        self.assertEqual(sum(worker["alive"] for worker in live["workers"]), 1 + 1)  # one rank, one spare
        self.assertEqual({(worker["group"], worker["rank"]) for worker in live["workers"]}, {(0, 0), (None, None)})
        self.assertRegex(live["model_hash"], "^[0-9a-f]{16}$")
        self.assertIn(b"  model %s  " % live["model_hash"].encode(), run_quire("inspect", "--name", server.name).stdout)
        self.kill(server)
        dead = json.loads(run_quire("inspect", "--name", server.name, "--json").stdout)
        self.assertEqual(dead["running"], 0)
        self.assertEqual(dead["pages"]["total"], live["pages"]["total"])
        self.assertEqual(run_quire("inspect", "--name", server.name).returncode, 0)
        self.assertEqual(run_quire("clear", "--name", server.name).returncode, 0)
        self.assertEqual(segments(server.name), [])
        gone = run_quire("inspect", "--name", server.name, "--json")
        self.assertEqual((gone.returncode, len(gone.stderr.splitlines())), (1, 1))

    def test_inspect_sees_the_sequence_that_runs(self):
        with Server(*SMALL) as server, server.open_stream(TEXT, {"prompt": "Once", "max_tokens": 900, "ignore_eos": True}) as stream:
            next(stream.events())
            seen = json.loads(run_quire("inspect", "--name", server.name, "--json").stdout)
            ids = [session["id"] for session in server.sessions()]
            self.assertEqual([session["id"] for session in seen["sessions"] if session["state"] not in ("free", "done")], ids)
            self.assertEqual(seen["pages"]["damaged"], 0)


def is_alive(pid):
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
