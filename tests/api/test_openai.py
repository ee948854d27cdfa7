"""The openai package against a server: what it sends is understood, what it gets is what it expects."""
import unittest

from quire_server import SMOLLM2, Server

try:
    import openai
except ImportError:
    openai = None

HELLO = [{"role": "user", "content": "Say hello to a friend who has come home."}]
server = client = None


def setUpModule():
    global server, client
    if not openai:
        raise unittest.SkipTest("the openai package is not here, and no package registry can be reached")
    if not SMOLLM2.exists():
        raise unittest.SkipTest(f"{SMOLLM2} is not here: `make model` gets it")
    server = Server("--workers", "2", "--kv-memory", "256M", "--ctx", "2048")
    client = make_client()


def tearDownModule():
    if server:
        server.close()


def make_client(key="none"):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=key, max_retries=0, timeout=120)


def chat(**fields):
    return client.chat.completions.create(**{"model": "default", "messages": HELLO, "max_tokens": 16, "temperature": 0, **fields})


def complete(**fields):
    return client.completions.create(**{"model": "default", "prompt": "Once upon a time", "max_tokens": 16, "temperature": 0, **fields})


def tokenize(text, special=True):
    return server.post("/tokenize", {"content": text, "add_special": False, "parse_special": special})[2]["tokens"]


def detokenize(ids):
    return server.post("/detokenize", {"tokens": ids})[2]["content"]


def joined(stream):
    """The text, the last finish reason and the last usage of a stream with one choice."""
    text, reason, usage = "", None, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            text += (choice.delta.content if hasattr(choice, "delta") else choice.text) or ""
    return text, reason, usage


class Models(unittest.TestCase):
    def test_the_model_is_listed_and_found_by_its_name(self):
        models = list(client.models.list())
        self.assertEqual(len(models), 1)
        self.assertEqual(client.models.retrieve(models[0].id).id, models[0].id)
        self.assertEqual(client.models.retrieve("default").object, "model")

    def test_an_unknown_model_is_not_found(self):
        with self.assertRaises(openai.NotFoundError):
            client.models.retrieve("no-such-model")

    def test_any_model_name_is_answered_by_the_one_model(self):
        self.assertTrue(chat(model="gpt-4o").choices[0].message.content)


class Answers(unittest.TestCase):
    def test_a_chat_answer_is_whole(self):
        answer = chat()
        choice = answer.choices[0]
        self.assertEqual(answer.object, "chat.completion")
        self.assertTrue(answer.id.startswith("chatcmpl-"))
        self.assertEqual(choice.message.role, "assistant")
        self.assertTrue(choice.message.content)
        self.assertIn(choice.finish_reason, ("stop", "length"))
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)
        self.assertLessEqual(answer.usage.completion_tokens, 16)

    def test_a_completion_is_16_tokens_long_when_nothing_is_said(self):
        answer = client.completions.create(model="default", prompt="One two three", extra_body={"ignore_eos": True})
        self.assertEqual(answer.object, "text_completion")
        self.assertEqual(answer.usage.completion_tokens, 16)
        self.assertEqual(answer.choices[0].finish_reason, "length")

    def test_a_chat_stream_says_what_the_whole_answer_says(self):
        whole = chat().choices[0]
        text, reason, usage = joined(chat(stream=True))
        self.assertEqual((text, reason), (whole.message.content, whole.finish_reason))
        self.assertIsNone(usage)

    def test_a_completion_stream_says_what_the_whole_answer_says(self):
        whole = complete().choices[0]
        text, reason, _ = joined(complete(stream=True))
        self.assertEqual((text, reason), (whole.text, whole.finish_reason))

    def test_a_stream_ends_with_its_usage_when_that_is_asked_for(self):
        whole = chat().usage
        chunks = list(chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.completion_tokens)
        self.assertEqual(chunks[-1].usage.prompt_tokens, whole.prompt_tokens)
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))
        self.assertEqual({chunk.id for chunk in chunks}, {chunks[0].id})

    def test_each_of_n_choices_is_drawn_differently_and_has_its_index(self):
        answer = chat(n=3, temperature=1.5, seed=4)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2])
        self.assertEqual(len({choice.message.content for choice in answer.choices}), 3)

    def test_n_choices_stream_side_by_side(self):
        whole = chat(n=2, temperature=1.5, seed=4)
        texts, reasons = {0: "", 1: ""}, {}
        for chunk in chat(n=2, temperature=1.5, seed=4, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
        self.assertEqual([texts[0], texts[1]], [choice.message.content for choice in whole.choices])
        self.assertEqual([reasons[0], reasons[1]], [choice.finish_reason for choice in whole.choices])

    def test_the_same_seed_gives_the_same_words_and_another_gives_others(self):
        first, again, other = (chat(temperature=1, seed=seed, max_tokens=32).choices[0].message.content for seed in (11, 11, 12))
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)

    def test_a_second_identical_prompt_is_found_in_pages(self):
        prompt = "A list of things that nobody else in these tests writes about: " + ", ".join(f"lamp {i}" for i in range(40))
        first, second = complete(prompt=prompt), complete(prompt=prompt)
        self.assertEqual(first.usage.prompt_tokens_details.cached_tokens, 0)
        self.assertGreaterEqual(second.usage.prompt_tokens_details.cached_tokens, first.usage.prompt_tokens - 32)
        self.assertLess(second.usage.prompt_tokens_details.cached_tokens, first.usage.prompt_tokens)
        self.assertEqual(first.choices[0].text, second.choices[0].text)

    def test_a_list_of_prompts_gives_one_choice_each_in_their_order(self):
        prompts = ["The sky is", "One plus one is", "Bread is made of"]
        answer = complete(prompt=prompts, max_tokens=6)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2])
        self.assertEqual([choice.text for choice in answer.choices], [complete(prompt=p, max_tokens=6).choices[0].text for p in prompts])

    def test_token_ids_are_the_same_prompt_as_their_text(self):
        text = "The sky is blue because"
        ids = server.post("/tokenize", {"prompt": text, "add_special_tokens": True})[2]["tokens"]
        said = complete(prompt=text).choices[0].text
        self.assertEqual(complete(prompt=ids).choices[0].text, said)
        self.assertEqual([choice.text for choice in complete(prompt=[ids, ids]).choices], [said, said])

    def test_a_stream_never_cuts_a_character(self):
        prompt = "🎉🎈🎁🎉🎈🎁🎉🎈🎁🎉🎈🎁"
        whole = complete(prompt=prompt, max_tokens=48, extra_body={"return_token_ids": True}).choices[0]
        self.assertTrue(any(ord(c) > 0xFFFF for c in whole.text), f"the model was to go on with pictures, not with {whole.text!r}")
        self.assertEqual(detokenize(whole.model_extra["token_ids"]), whole.text)
        pieces = [choice.text for chunk in complete(prompt=prompt, max_tokens=48, stream=True) for choice in chunk.choices]
        self.assertEqual("".join(pieces), whole.text)  # a cut character would have become two U+FFFD


class Logprobs(unittest.TestCase):
    def test_each_token_of_a_chat_has_its_alternatives_best_first(self):
        content = chat(logprobs=True, top_logprobs=4).choices[0].logprobs.content
        for token in content:
            self.assertEqual(len(token.top_logprobs), 4)
            likely = [other.logprob for other in token.top_logprobs]
            self.assertEqual(likely, sorted(likely, reverse=True))
            self.assertAlmostEqual(token.logprob, likely[0], places=5)  # temperature 0 takes the best
            self.assertLessEqual(token.logprob, 0)

    def test_the_bytes_of_the_tokens_are_the_text(self):
        choice = chat(logprobs=True, extra_body={"ignore_eos": True}).choices[0]
        self.assertEqual(len(choice.logprobs.content), 16)
        said = b"".join(bytes(token.bytes) for token in choice.logprobs.content if token.bytes)
        self.assertTrue(said.decode("utf-8", "replace").startswith(choice.message.content.rstrip("\ufffd")))

    def test_a_stream_gives_the_same_logprobs(self):
        whole = chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content
        streamed = [
            token
            for chunk in chat(logprobs=True, top_logprobs=2, stream=True)
            for choice in chunk.choices
            for token in (choice.logprobs.content if choice.logprobs else None) or []
        ]
        self.assertEqual([(t.token, t.logprob) for t in streamed], [(t.token, t.logprob) for t in whole])

    def test_a_completion_gives_lists_of_one_length(self):
        logprobs = complete(logprobs=3, extra_body={"ignore_eos": True}).choices[0].logprobs
        self.assertEqual(len(logprobs.tokens), 16)
        self.assertEqual(len(logprobs.token_logprobs), 16)
        self.assertEqual(len(logprobs.text_offset), 16)
        self.assertTrue(all(len(top) in (3, 4) for top in logprobs.top_logprobs))

    def test_echo_gives_the_logprobs_of_the_prompt_and_none_of_its_first_token(self):
        ids = tokenize("The quick brown fox jumps over the lazy dog")
        choice = complete(prompt=ids, echo=True, logprobs=1, max_tokens=4, extra_body={"ignore_eos": True}).choices[0]
        self.assertEqual(len(choice.logprobs.token_logprobs), len(ids) + 4)
        self.assertIsNone(choice.logprobs.token_logprobs[0])
        self.assertTrue(all(value <= 0 for value in choice.logprobs.token_logprobs[1:]))
        self.assertTrue(choice.text.startswith("The quick brown fox"))
        for offset, token in zip(choice.logprobs.text_offset, choice.logprobs.tokens):
            self.assertEqual(choice.text[offset : offset + len(token)], token)

    def test_a_prompt_is_scored_without_a_word_being_said(self):
        ids = tokenize("Bread is made of flour and water")
        answer = complete(prompt=ids, echo=True, logprobs=0, max_tokens=0)
        self.assertEqual(answer.choices[0].text, "Bread is made of flour and water")
        self.assertEqual(len(answer.choices[0].logprobs.token_logprobs), len(ids))
        self.assertEqual(answer.usage.completion_tokens, 0)

    def test_what_was_said_scores_the_same_when_it_is_the_prompt(self):
        ids = tokenize("Bread is made of flour and water")
        first = complete(prompt=ids, max_tokens=6, logprobs=0, extra_body={"ignore_eos": True, "return_token_ids": True}).choices[0]
        both = complete(prompt=ids + first.model_extra["token_ids"], max_tokens=0, echo=True, logprobs=0).choices[0]
        self.assertEqual(both.logprobs.token_logprobs[len(ids) :], first.logprobs.token_logprobs)


class Sampling(unittest.TestCase):
    def greedy(self, **more):
        return complete(max_tokens=40, extra_body={"ignore_eos": True, "return_token_ids": True, **more}).choices[0]

    def test_a_stop_string_ends_the_answer_and_never_shows(self):
        text = self.greedy().text
        middle = len(text) // 2
        for length in (1, 3, 9):
            stop = text[middle : middle + length]
            want = text[: text.find(stop)]
            answer = complete(max_tokens=40, stop=stop, extra_body={"ignore_eos": True}).choices[0]
            self.assertEqual((answer.text, answer.finish_reason), (want, "stop"), f"stop {stop!r}")
            shown = ""
            for chunk in complete(max_tokens=40, stop=[stop, "\x00never"], stream=True, extra_body={"ignore_eos": True}):
                shown += chunk.choices[0].text
                self.assertTrue(want.startswith(shown), f"stop {stop!r} leaks: {shown!r}")
            self.assertEqual(shown, want)

    def test_a_beginning_of_a_stop_string_that_goes_on_otherwise_is_shown(self):
        text = self.greedy().text
        half = text[10:14] + "\x00"
        self.assertEqual(joined(complete(max_tokens=40, stop=half, stream=True, extra_body={"ignore_eos": True}))[0], text)

    def test_a_bias_bans_and_forces_tokens(self):
        likely = self.greedy().model_extra["token_ids"][0]
        banned = complete(max_tokens=8, logit_bias={str(likely): -100}, extra_body={"return_token_ids": True, "ignore_eos": True})
        self.assertNotIn(likely, banned.choices[0].model_extra["token_ids"])
        forced = complete(max_tokens=8, temperature=1, logit_bias={"345": 100}, extra_body={"return_token_ids": True, "ignore_eos": True})
        self.assertEqual(forced.choices[0].model_extra["token_ids"], [345] * 8)

    def test_a_stop_token_ends_the_answer_but_not_before_min_tokens(self):
        ids = self.greedy().model_extra["token_ids"]
        at_once = complete(max_tokens=40, extra_body={"stop_token_ids": [ids[0]]})
        self.assertEqual((at_once.choices[0].text, at_once.choices[0].finish_reason), ("", "stop"))
        later = complete(max_tokens=40, extra_body={"stop_token_ids": [ids[0]], "min_tokens": 5, "ignore_eos": True})
        self.assertGreaterEqual(later.usage.completion_tokens, 5)

    def test_the_end_token_ends_unless_it_is_to_be_ignored(self):
        end = tokenize("<|im_end|>")
        self.assertEqual(len(end), 1)
        bias = {str(end[0]): 100}
        ended = chat(logit_bias=bias).choices[0]
        self.assertEqual((ended.message.content or "", ended.finish_reason), ("", "stop"))
        ignored = chat(logit_bias=bias, max_tokens=6, extra_body={"ignore_eos": True})
        self.assertEqual((ignored.usage.completion_tokens, ignored.choices[0].finish_reason), (6, "length"))

    def test_token_ids_are_those_of_the_text(self):
        choice = self.greedy()
        self.assertEqual(len(choice.model_extra["token_ids"]), 40)
        self.assertEqual(detokenize(choice.model_extra["token_ids"]), choice.text)
        streamed = []
        for chunk in complete(max_tokens=40, stream=True, extra_body={"ignore_eos": True, "return_token_ids": True}):
            streamed += (chunk.choices[0].model_extra or {}).get("token_ids") or []
        self.assertEqual(streamed, choice.model_extra["token_ids"])

    def test_penalties_change_what_is_said(self):
        plain = self.greedy().text
        self.assertNotEqual(complete(max_tokens=40, frequency_penalty=2, extra_body={"ignore_eos": True}).choices[0].text, plain)
        self.assertNotEqual(self.greedy(repetition_penalty=1.8).text, plain)

    def test_one_candidate_is_the_greedy_one(self):
        self.assertEqual(self.greedy().text, self.greedy(top_k=1, temperature=1.2).text)


class Refusals(unittest.TestCase):
    def refused(self, call, **fields):
        with self.assertRaises(openai.BadRequestError) as caught:
            call(**fields)
        self.assertEqual(caught.exception.status_code, 400)
        return caught.exception

    def test_a_value_out_of_range_is_refused_by_its_name(self):
        for field, value in {"temperature": -1, "top_p": 2, "n": 0, "top_logprobs": 3, "presence_penalty": 9}.items():
            self.assertEqual(self.refused(chat, **{field: value}).param, field)

    def test_what_is_not_built_is_refused_by_its_name(self):
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
        self.assertEqual(self.refused(chat, tools=tools).param, "tools")
        self.assertEqual(self.refused(chat, response_format={"type": "json_object"}).param, "response_format")
        self.assertEqual(self.refused(complete, suffix="end").param, "suffix")
        self.assertEqual(self.refused(complete, best_of=3).param, "best_of")

    def test_what_nobody_documents_is_ignored(self):
        fields = {"no_such_field": {"a": [1]}, "user": "me", "metadata": {"a": "b"}, "store": False}
        self.assertEqual(chat(extra_body=fields).choices[0].message.content, chat().choices[0].message.content)

    def test_null_is_absent(self):
        fields = {"stop": None, "logit_bias": None, "seed": None, "n": None, "response_format": None, "min_tokens": None}
        self.assertEqual(chat(extra_body=fields).choices[0].message.content, chat().choices[0].message.content)

    def test_a_prompt_longer_than_the_context_says_both_numbers(self):
        for call in (lambda: complete(prompt=[100] * 2049), lambda: chat(messages=[{"role": "user", "content": "word " * 2500}])):
            error = self.refused(call)
            self.assertEqual(error.code, "context_length_exceeded")
            self.assertEqual(error.body["n_ctx"], 2048)
            self.assertGreater(error.body["n_prompt_tokens"], 2048)
            self.assertIn("2048", error.message)

    def test_a_chat_of_no_tokens_is_refused(self):
        self.assertEqual(self.refused(chat, max_tokens=0).param, "max_tokens")

    def test_an_empty_conversation_is_refused(self):
        self.assertEqual(self.refused(chat, messages=[]).param, "messages")
