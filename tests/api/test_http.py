"""Plain HTTP: what clients other than the openai package rely on."""
import base64
import json
import re
import socket
import tempfile
import time
import unittest

from quire_server import SMOLLM2, Server, wait_until

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
LONG_TALK = {"prompt": "Once upon a time", "max_tokens": 1500, "ignore_eos": True, "temperature": 0}
server = None


def setUpModule():
    global server
    if not SMOLLM2.exists():
        raise unittest.SkipTest(f"{SMOLLM2} is not here: `make model` gets it")
    server = Server("--workers", "2", "--kv-memory", "256M", "--ctx", "8192", "--max-queue", "2", "--session-slots", "8")


def tearDownModule():
    if server:
        server.close()


class Routes(unittest.TestCase):
    def test_health_is_ok(self):
        status, _, body = server.get("/health")
        self.assertEqual((status, body), (200, {"status": "ok"}))

    def test_a_browser_may_call_from_anywhere(self):
        asked = {"Origin": "http://example.org", "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization, content-type"}  # fmt: skip
        status, headers, _ = server.ask("OPTIONS", CHAT, headers=asked)
        self.assertIn(status, (200, 204))
        self.assertEqual(headers["Access-Control-Allow-Origin"], "http://example.org")
        self.assertIn("POST", headers["Access-Control-Allow-Methods"])
        self.assertTrue(headers["Access-Control-Allow-Headers"])
        answer = server.get("/health", headers=asked)[1]
        self.assertEqual(answer["Access-Control-Allow-Origin"], "http://example.org")
        self.assertIn("X-Request-Id", answer["Access-Control-Expose-Headers"])

    def ask_raw(self, head):
        """What comes back for these bytes, up to the connection's end: status, fields, body."""
        with socket.create_connection(("127.0.0.1", server.port), 30) as raw:
            raw.sendall(head)
            answer = b"".join(iter(lambda: raw.recv(65536), b"")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        status, *lines = head.split("\r\n")
        return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), json.loads(body)

    def count_responses(self):
        text = server.get("/metrics")[2].decode()
        return {label: int(re.search(rf'^quire_http_\w+_total{{[^}}]*{label}[^}}]*}} (\d+)$', text, re.M)[1]) for label in ('status="4xx"', 'route="other"')}

    def test_a_browser_may_read_what_http_itself_forbids(self):
        origin = b"Origin: http://example.org\r\n"
        for rest, status, allowed in [(b"GET /health HTTP/1.1\r\n" + origin + b"Content-Length: x\r\n\r\n", 400, "http://example.org"),
                                      (b"GET /health HTTP/1.1\r\n" + origin + b"X: " + b"x" * 20000, 431, "http://example.org"),
                                      (b"GET /health HTTP/1.1\r\nX: " + b"x" * 20000, 431, "*"),
                                      (b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n" + origin + b"Content-Length: 99999999\r\n\r\n", 413, "http://example.org"),
                                      (b"nonsense\r\n\r\n", 400, "*")]:  # fmt: skip
            before = self.count_responses()
            got, headers, body = self.ask_raw(rest)
            self.assertEqual((got, headers.get("Access-Control-Allow-Origin"), headers.get("Vary")), (status, allowed, "Origin"), rest[:60])
            self.assertEqual(set(body["error"]), {"message", "type", "param", "code"})
            after = self.count_responses()
            self.assertEqual(after['status="4xx"'], before['status="4xx"'] + 1)
            other = 0 if b"completions" in rest else 1
            self.assertEqual(after['route="other"'], before['route="other"'] + other)

    def test_errors_are_json_wherever_they_arise(self):
        for method, path, body, want in [("GET", "/no/such", None, 404), ("GET", CHAT, None, 405), ("POST", CHAT, b"{", 400),
                                         ("POST", CHAT, b'{"a":1,"a":2}', 400), ("PUT", "/health", b"{}", 405)]:  # fmt: skip
            status, headers, answer = server.ask(method, path, body)
            self.assertEqual(status, want, f"{method} {path}")
            self.assertEqual(set(answer["error"]) & {"message", "type", "param", "code"}, {"message", "type", "param", "code"})
            if status == 405:
                self.assertIn("OPTIONS", headers["Allow"])

    def test_a_head_does_not_take_an_answer_over(self):
        with server.open_stream(CHAT, {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 200, "ignore_eos": True, "stream": True}) as stream:
            answer_id = next(iter(stream.events()))["id"]
            status, headers = server.ask("HEAD", f"{CHAT}/{answer_id}")[:2]
            self.assertEqual((status, headers["Allow"]), (405, "GET, OPTIONS"))
        self.assertEqual(server.ask("HEAD", "/v1/models")[0], 200)

    def test_who_says_behind_which_event_is_given_events_whatever_it_accepts(self):
        body = {"prompt": "Count: one, two,", "max_tokens": 6, "ignore_eos": True, "temperature": 0}
        answer = server.post(TEXT, body)[2]
        for headers in ({"Last-Event-ID": "2"}, {"Last-Event-ID": "2", "Accept": "*/*"}, {"Last-Event-ID": "2", "Accept": "application/json"}):
            status, said, stream = server.get(f"{TEXT}/{answer['id']}", headers=headers)
            self.assertEqual((status, said["Content-Type"].split(";")[0]), (200, "text/event-stream"), headers)
            self.assertIn(b"\nid: 5\n", b"\n" + stream)
            self.assertNotIn(b"\nid: 2\n", b"\n" + stream)
            self.assertTrue(stream.endswith(b"data: [DONE]\n\n"), stream)
        self.assertEqual(server.get(f"{TEXT}/{answer['id']}")[2]["choices"], answer["choices"])
        status, _, refused = server.get(f"{TEXT}/{answer['id']}", headers={"Last-Event-ID": "two"})
        self.assertEqual(status, 400, refused)

    def test_what_is_not_built_is_named_with_what_is(self):
        for path, said in [("/v1/embeddings", "not built: /v1/embeddings;"), ("/v1/responses", "not built: /v1/responses;"),
                           ("/v1/audio/speech", "not built: /v1/audio/speech;"), ("/v1/chat", "there is nothing at /v1/chat;")]:
            status, _, answer = server.post(path, {"input": "x"})
            self.assertEqual((status, answer["error"]["type"]), (404, "not_found_error"))
            self.assertIn(said, answer["error"]["message"])
            self.assertIn("/v1/completions", answer["error"]["message"])

    def test_a_body_of_another_kind_is_415(self):
        body = b'{"prompt": "Hi", "max_tokens": 1}'
        for headers, want in [({"Content-Type": "application/xml"}, 415), ({"Content-Type": "text/plain"}, 415),
                              ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
                              ({"Content-Type": "application/json; charset=utf-8"}, 200),
                              ({"Content-Type": "application/x-www-form-urlencoded"}, 200)]:  # fmt: skip
            self.assertEqual(server.ask("POST", TEXT, body, headers=headers)[0], want, headers)

    def test_a_body_that_is_too_large_is_told_the_limit(self):
        status, _, answer = server.ask("POST", TEXT, b" " * ((8 << 20) + 1))
        self.assertEqual((status, answer["error"]["type"]), (413, "invalid_request_error"))
        self.assertIn(str(8 << 20), answer["error"]["message"])

    def test_two_requests_go_over_one_connection(self):
        connection = server.connect()
        self.addCleanup(connection.close)
        connection.request("GET", "/health")
        connection.getresponse().read()
        first = connection.sock
        connection.request("GET", "/v1/models")
        self.assertEqual(connection.getresponse().status, 200)
        self.assertIsNotNone(first)
        self.assertIs(connection.sock, first)

    def test_the_page_loads_all_it_names(self):
        status, headers, page = server.get("/")
        self.assertEqual(status, 200)
        self.assertTrue(headers["Content-Type"].startswith("text/html"))
        names = re.findall(rb'(?:src|href)="(/?[\w.-]+\.(?:js|css))"', page)
        self.assertTrue(names)
        for name in names:
            self.assertEqual(server.get("/" + name.decode().lstrip("/"))[0], 200, name)

    def test_a_request_id_comes_back(self):
        self.assertEqual(server.get("/health", headers={"X-Request-Id": "my-own-42"})[1]["X-Request-Id"], "my-own-42")


class Tokenizer(unittest.TestCase):
    def test_text_comes_back_from_its_tokens(self):
        for text in ["", "Hello world", "  two  spaces\n\ttab", "grüße, 世界, 🎉", "<|im_start|>user"]:
            for special in (False, True):
                ids = server.post("/tokenize", {"content": text, "add_special": False, "parse_special": special})[2]["tokens"]
                answer = server.post("/detokenize", {"tokens": ids})[2]
                if not special or "<|" not in text:
                    self.assertEqual((answer["content"], answer["prompt"]), (text, text))

    def test_a_control_token_is_one_token_only_when_it_may_be(self):
        plain, special = (server.post("/tokenize", {"content": "<|im_end|>", "parse_special": s})[2]["tokens"] for s in (False, True))
        self.assertEqual(len(special), 1)
        self.assertGreater(len(plain), 1)

    def test_both_dialects_count_the_same(self):
        ours = server.post("/tokenize", {"content": "The sky is blue", "add_special": True})[2]["tokens"]
        theirs = server.post("/tokenize", {"prompt": "The sky is blue", "add_special_tokens": True})[2]
        self.assertEqual((theirs["tokens"], theirs["count"]), (ours, len(ours)))

    def test_wrong_fields_are_refused_by_name(self):
        self.assertEqual(server.post("/tokenize", {"content": 5})[2]["error"]["param"], "content")
        self.assertEqual(server.post("/detokenize", {"tokens": [10**9]})[2]["error"]["param"], "tokens")

    def test_the_tokenizer_tells_its_template_and_ends(self):
        info = server.get("/tokenizer_info")[2]
        self.assertEqual(info["eos_token"], "<|im_end|>")
        self.assertIn("<|im_start|>", info["chat_template"])


class Metrics(unittest.TestCase):
    LINE = re.compile(r'^([a-z_:][a-z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (-?[0-9.e+-]+|[+-]Inf|NaN)$')

    def read(self):
        status, headers, text = server.get("/metrics")
        self.assertEqual(status, 200)
        self.assertTrue(headers["Content-Type"].startswith("text/plain; version=0.0.4"))
        types, values = {}, {}
        for line in text.decode().splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                self.assertNotIn(name, types, "one TYPE line a metric")
                types[name] = kind
            elif not line.startswith("# HELP "):
                match = self.LINE.match(line)
                self.assertTrue(match, f"no line of the text format: {line!r}")
                self.assertNotIn((match[1], match[2]), values, "one line a series")
                values[match[1], match[2]] = float(match[3])
        return types, values

    def test_every_line_parses_and_every_series_has_a_type(self):
        types, values = self.read()
        for name, _ in values:
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            self.assertTrue(name in types or types.get(base) == "histogram", name)
        self.assertGreater(len(types), 20)

    def test_pages_of_all_states_are_all_pages(self):
        pages = {re.search(r'state="(\w+)"', labels)[1]: count for (name, labels), count in self.read()[1].items() if name == "quire_kv_pages"}
        self.assertEqual(set(pages), {"free", "used", "cached", "retired"})
        self.assertEqual(sum(pages.values()), server.state()["pages"]["total"])

    def of(self, name, label):
        return next(value for (series, labels), value in self.read()[1].items() if series == name and label in (labels or ""))

    def test_requests_to_no_route_and_refused_ones_are_counted(self):
        def counted():
            return [self.of("quire_http_requests_total", f'route="{route}"') for route in ("other", "chat", "state")]

        before = counted()
        server.get("/no/such")
        server.get(CHAT)  # 405
        server.ask("POST", "/quire/limits", b"<x/>", headers={"Content-Type": "application/xml"})  # 415
        self.assertEqual([now - then for now, then in zip(counted(), before)], [1, 1, 1])

    def test_the_log_counts_a_prompt_of_several_choices_once(self):
        for _ in range(2):  # the second finds the prompt in pages
            usage = server.post(TEXT, {"prompt": "One prompt of several choices, long enough for a page or two: " * 2, "n": 3, "max_tokens": 2})[2]["usage"]
        self.assertGreater(usage["prompt_tokens_details"]["cached_tokens"], 0)
        line = server.wait_log(rf"done: {usage['prompt_tokens']} prompt tokens \(([1-9]\d*) cached\)")
        self.assertEqual(int(line[1]), usage["prompt_tokens_details"]["cached_tokens"])

    def test_the_kernel_set_is_named(self):
        labels = next(labels for name, labels in self.read()[1] if name == "quire_build_info")
        self.assertRegex(labels, 'kernels="(reference|avx2|avx512|amx)"')

    def test_histograms_are_cumulative_and_end_with_their_count(self):
        server.post(TEXT, {"prompt": "a b c", "max_tokens": 4})
        types, values = self.read()
        histograms = [name for name, kind in types.items() if kind == "histogram"]
        self.assertIn("quire_time_to_first_token_seconds", histograms)
        for name in histograms:
            buckets = [(float(re.search(r'le="([^"]+)"', labels)[1].replace("+Inf", "inf")), count)
                       for (series, labels), count in values.items() if series == name + "_bucket"]  # fmt: skip
            counts = [count for _, count in buckets]
            self.assertEqual([le for le, _ in buckets], sorted(le for le, _ in buckets), name)
            self.assertEqual(counts, sorted(counts), name)
            total = next(count for (series, _), count in values.items() if series == name + "_count")
            self.assertEqual((buckets[-1][0], counts[-1]), (float("inf"), total), name)
        first = next(count for (series, _), count in values.items() if series == "quire_time_to_first_token_seconds_count")
        self.assertGreater(first, 0)

    def test_what_a_request_makes_is_counted(self):
        def generated():
            return next(v for (name, _), v in self.read()[1].items() if name == "quire_generation_tokens_total")

        before = generated()
        server.post(TEXT, {"prompt": "a b c", "max_tokens": 7, "ignore_eos": True})
        self.assertEqual(generated() - before, 7)


class Limits(unittest.TestCase):
    def tearDown(self):
        server.post("/quire/limits", {"max_sessions": 8})
        wait_until("no sequence runs any more", lambda: not server.sessions())

    def set(self, value):
        return server.post("/quire/limits", {"max_sessions": value})

    def test_a_limit_that_cannot_be_says_both_numbers(self):
        for value in (9, 10**6):
            status, _, body = self.set(value)
            self.assertEqual((status, body["error"]["param"]), (400, "max_sessions"))
            self.assertIn(str(value), body["error"]["message"])
            self.assertIn("8", body["error"]["message"])
        for value in (0, -1, 1.5, "4", None, [4]):
            self.assertEqual(self.set(value)[0], 400, value)

    def test_a_lower_limit_holds_for_new_ones_and_a_higher_one_lets_them_in(self):
        self.assertEqual(self.set(1)[0], 200)
        with server.open_stream(TEXT, LONG_TALK) as first, server.open_stream(TEXT, {**LONG_TALK, "prompt": "Two"}) as second:
            wait_until("the first runs and the second waits", lambda: (s := server.state()) and (len(s["sessions"]), s["waiting"]) == (1, 1))
            self.assertEqual(self.set(2)[0], 200)
            wait_until("both run", lambda: len(server.sessions()) == 2)
            self.assertEqual(self.set(1)[0], 200)
            self.assertEqual(len(server.sessions()), 2)
            self.assertEqual((first.status, second.status), (200, 200))

    def test_a_full_queue_is_429_with_a_time_to_come_back(self):
        self.set(1)
        streams = [server.open_stream(TEXT, {**LONG_TALK, "prompt": f"Story {i}"}) for i in range(3)]
        self.addCleanup(lambda: [stream.close() for stream in streams])
        wait_until("one runs and two wait", lambda: server.state()["waiting"] == 2)
        status, headers, body = server.post(TEXT, {"prompt": "one too many", "max_tokens": 1})
        self.assertEqual((status, body["error"]["type"]), (429, "rate_limit_error"))
        self.assertGreaterEqual(int(headers["Retry-After"]), 1)


class Leaving(unittest.TestCase):
    def test_a_client_that_leaves_ends_its_sequence_at_once(self):
        for leave in ("close", "leave"):
            stream = server.open_stream(TEXT, LONG_TALK)
            next(stream.events())
            self.assertEqual(len(server.sessions()), 1)
            getattr(stream, leave)()
            wait_until("its sequence is gone", lambda: not server.sessions(), patience_s=5)

    def test_a_client_that_leaves_while_it_waits_leaves_no_trace(self):
        server.post("/quire/limits", {"max_sessions": 1})
        self.addCleanup(server.post, "/quire/limits", {"max_sessions": 8})
        with server.open_stream(TEXT, LONG_TALK) as first:
            next(first.events())
            server.open_stream(TEXT, LONG_TALK).leave()
            wait_until("nobody waits", lambda: server.state()["waiting"] == 0, patience_s=5)
        wait_until("nobody runs", lambda: not server.sessions(), patience_s=5)

    def test_a_whole_answer_whose_client_left_is_not_finished(self):
        body = b'{"prompt": "x", "max_tokens": 1500, "ignore_eos": true}'
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            wait_until("it runs", lambda: server.sessions())
        wait_until("its sequence is gone", lambda: not server.sessions(), patience_s=5)


class Pings(unittest.TestCase):
    def test_a_stream_that_waits_hears_comments_and_then_its_answer(self):
        want = server.post(TEXT, {"prompt": "The sky is", "max_tokens": 5, "temperature": 0})[2]["choices"][0]["text"]
        server.post("/quire/limits", {"max_sessions": 1})
        self.addCleanup(server.post, "/quire/limits", {"max_sessions": 8})
        with server.open_stream(TEXT, {**LONG_TALK, "max_tokens": 8000}) as first:
            next(first.events())
            with server.open_stream(TEXT, {"prompt": "The sky is", "max_tokens": 5, "temperature": 0}) as second:
                began = time.monotonic()
                line = second.reply.readline()
                self.assertTrue(line.startswith(b":"), line)
                self.assertLess(time.monotonic() - began, 30)
                first.leave()
                self.assertEqual(second.text(), want)


class Keys(unittest.TestCase):
    def test_a_server_with_keys_answers_only_those_who_have_one(self):
        with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
            keys.write("first-key-of-some-length\nsecond-key-of-some-length\n")
            keys.flush()
            with Server("--workers", "1", "--kv-memory", "64M", "--api-key-file", keys.name) as keyed:
                self.assertEqual(keyed.get("/health")[0], 200)
                self.assertEqual(keyed.get("/")[0], 200)
                for path in ("/v1/models", "/metrics", "/quire/state", "/no/such"):
                    status, _, body = keyed.get(path)
                    self.assertEqual((status, body["error"]["type"], body["error"]["code"]), (401, "authentication_error", "invalid_api_key"), path)
                wrong = [{"Authorization": "Bearer first-key"}, {"X-Api-Key": "nonsense"}, {"Authorization": "Bearer "},
                         {"Authorization": "Basic " + base64.b64encode(b"first-key-of-some-length").decode()}]  # fmt: skip
                for headers in wrong:
                    self.assertEqual(keyed.get("/v1/models", headers=headers)[0], 401, headers)
                for headers in ({"Authorization": "Bearer first-key-of-some-length"}, {"X-Api-Key": "second-key-of-some-length"}):
                    self.assertEqual(keyed.get("/v1/models", headers=headers)[0], 200, headers)
                self.assertEqual(keyed.post(TEXT, {"prompt": "x"})[0], 401)
                self.classes_of_the_client(keyed)

    def classes_of_the_client(self, keyed):
        try:
            import openai
        except ImportError:
            return
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{keyed.port}/v1", api_key="wrong", max_retries=0)
        with self.assertRaises(openai.AuthenticationError):
            client.models.list()

    def test_a_full_server_is_a_rate_limit_to_the_client(self):
        try:
            import openai
        except ImportError:
            self.skipTest("the openai package is not here, and no package registry can be reached")
        with Server("--workers", "1", "--kv-memory", "64M", "--max-sessions", "1", "--max-queue", "0") as small:
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{small.port}/v1", api_key="none", max_retries=0)
            with small.open_stream(TEXT, LONG_TALK) as first:
                next(first.events())
                with self.assertRaises(openai.RateLimitError):
                    client.completions.create(model="default", prompt="one too many")
