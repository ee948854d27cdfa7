"""What the soak asks for: requests of every kind, made from a seed."""
WORDS = "paper sea library lamp winter quire folio binding harbour letters orchard clock river stone bread violin".split()


def catalogue(size, tokens, dice):
    """So many requests, each a path, a body without `stream`, and a second message where it is a talk of two turns."""
    shared = "You answer in the manner of an old librarian who has seen " + ", ".join(f"{i} {WORDS[i % 16]}s" for i in range(60)) + "."
    common = {"model": "default", "ignore_eos": True, "return_token_ids": True}
    found = []
    for i in range(size):
        words = " ".join(dice.sample(WORDS, 4))
        body = {**common, "max_tokens": dice.randint(tokens // 3, tokens)}
        draw = {"seed": dice.randrange(1 << 30), "temperature": dice.choice([0.7, 1.0, 1.3]), "top_p": 0.95}
        talk = [{"role": "user", "content": f"Tell a story of {words}."}]
        kind = ("greedy", "seeded", "choices", "logprobs", "chat", "talk", "shared prefix", "many prompts", "echo", "penalties", "whole")[i % 11]
        path, second = "/v1/completions", None
        if kind == "greedy":
            body |= {"prompt": f"{words} and", "temperature": 0}
        elif kind == "seeded":
            body |= {"prompt": f"Once, {words}", **draw}
        elif kind == "choices":
            body |= {"prompt": f"A list of {words}:", **draw, "n": dice.choice([2, 3])}
        elif kind == "logprobs":
            body |= {"prompt": f"{words} are", **draw, "logprobs": 3}
        elif kind == "chat":
            path, body = "/v1/chat/completions", {**body, "messages": talk, **draw, "logprobs": True, "top_logprobs": 2}
        elif kind == "talk":
            path, body, second = "/v1/chat/completions", {**body, "messages": talk, "temperature": 0}, f"And now without the {words.split()[0]}."
        elif kind == "shared prefix":
            path, body = "/v1/chat/completions", {**body, "messages": [{"role": "system", "content": shared}, *talk], **draw}
        elif kind == "many prompts":
            body |= {"prompt": [f"{words},", [dice.randrange(20, 400) for _ in range(40)]], **draw}
        elif kind == "echo":
            body |= {"prompt": f"{words} again", "echo": True, "logprobs": 1, "temperature": 0}
        elif kind == "penalties":
            body |= {"prompt": f"{words}, {words}", **draw, "repetition_penalty": 1.2, "frequency_penalty": 0.4, "stop": ["\n\n\n"], "top_k": 40}
        elif kind == "whole":
            body |= {"prompt": f"Without a stream: {words}", **draw, "logprobs": 2}
        found.append({"kind": kind, "path": path, "body": body, "second": second})
    return found


def second_turn(entry, first):
    said = first[0]["text"]
    messages = [*entry["body"]["messages"], {"role": "assistant", "content": said}, {"role": "user", "content": entry["second"]}]
    return {**entry["body"], "messages": messages}
