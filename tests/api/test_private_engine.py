"""Commands with workers of their own (bench, score) leave no shared memory behind, however they end."""
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from quire_server import PATIENCE_S, QUIRE, SMOLLM2, run_quire, wait_until

SMALL = ("--workers", "1", "--kv-memory", "64M", "--ctx", "1024")


@unittest.skipUnless(SMOLLM2.exists(), f"{SMOLLM2} is not here: `make model` gets it")
class Ends(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="quire-test-", dir="/dev/shm")  # other commands that start do not sweep here
        self.addCleanup(shutil.rmtree, self.folder)
        self.options = ("-m", SMOLLM2, *SMALL, "--shm-dir", self.folder)

    def memory(self):
        return sorted(path.name for path in Path(self.folder).iterdir())

    def begin(self):
        """A bench that would go on for minutes, with its memory made."""
        words = [QUIRE, "bench", *self.options, "--repeat", "1000"]
        process = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        wait_until("its weights lie in memory", lambda: any(f".private.bench.{process.pid}.weights" in name for name in self.memory()))
        return process

    def test_a_signal_ends_it_and_its_memory(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = self.begin()
            process.send_signal(number)
            out, error = process.communicate(timeout=PATIENCE_S)
            self.assertEqual((process.returncode, out), (1, b""), error)
            self.assertIn(b"interrupted", error)
            self.assertEqual(self.memory(), [])

    def test_what_a_killed_one_left_goes_with_the_next(self):
        process = self.begin()
        process.kill()
        process.communicate(timeout=PATIENCE_S)
        self.assertNotEqual(self.memory(), [])
        done = run_quire("bench", *self.options, "--prefill", "16", "--batch", "1", "--gen", "1", "--repeat", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.memory(), [])
