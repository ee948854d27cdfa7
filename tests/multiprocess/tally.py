"""What the soak has compared: tokens that a client was not told, told twice, told otherwise."""
import difflib
import threading
from collections import Counter


class Tally:
    """What was compared; the lock is for the clients' threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.requests, self.faults, self.problems = Counter(), Counter(), []
        self.compared = self.lost = self.doubled = self.different = self.failed = self.scores = 0
        self.pickups = self.left = 0

    def problem(self, text):
        with self.lock:
            self.problems.append(text)
        print(f"FAILED {text}", flush=True)

    def ids(self, mine, theirs, is_part):
        """Tokens of one choice. A client that stayed away has heard a beginning."""
        self.compared += len(mine)
        if is_part:
            theirs = theirs[: len(mine)]
        if mine == theirs:
            return True
        for what, a, b, c, d in difflib.SequenceMatcher(None, theirs, mine, autojunk=False).get_opcodes():
            self.lost += b - a if what == "delete" else 0
            self.doubled += d - c if what == "insert" else 0
            self.different += max(b - a, d - c) if what == "replace" else 0
        return False

    def streamed(self, mine, theirs, is_part):
        """True: a client was told what another one was told in calm."""
        with self.lock:
            same = is_part or mine.keys() == theirs.keys()
            for index, calm in theirs.items():
                heard = mine.get(index) or {"text": "", "ids": [], "tail": [], "logprobs": [], "finish": None}
                part = is_part and heard["finish"] is None
                if not self.ids(heard["ids"] + heard["tail"], calm["ids"] + calm["tail"], part):
                    same = False
                elif part:
                    same &= calm["text"].startswith(heard["text"]) and calm["logprobs"][: len(heard["logprobs"])] == heard["logprobs"]
                elif heard != calm:
                    self.different += 1
                    same = False
                self.scores += len(heard["logprobs"])
            return same

    def whole(self, mine, theirs):
        with self.lock:
            same = len(mine) == len(theirs)
            for heard, calm in zip(mine, theirs):
                if not self.ids(heard["token_ids"], calm["token_ids"], False):
                    same = False
                elif heard != calm:
                    self.different += 1
                    same = False
            return same
