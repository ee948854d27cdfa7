"""webdriver: a headless Chromium driven through chromedriver, with nothing but the standard library (W3C WebDriver)."""

import base64
import json
import re
import select
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that W3C WebDriver gives to references of elements
KEYS = {"enter": "\ue007", "escape": "\ue00c", "tab": "\ue004"}


class Refused(Exception):
    """chromedriver answered with an error."""


def find_programs():
    """Paths of the browser and its driver; None where one is not there."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return browser, shutil.which("chromedriver")


def wait_for(condition, seconds, what):
    """The first true value of condition(), asked again and again until the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what}")
        select.select(
            [], [], [], 0.05
        )  # a pause between two looks; what ends the wait is the condition or the deadline


class Browser:
    def __init__(self, chromium, chromedriver):
        self.profile = tempfile.TemporaryDirectory(prefix="quire-browser-", ignore_cleanup_errors=True)
        self.driver = subprocess.Popen(
            [chromedriver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            self.base = f"http://127.0.0.1:{self._read_port()}"
            options = {
                "binary": chromium,
                "args": [*CHROMIUM_FLAGS, f"--user-data-dir={self.profile.name}", "--window-size=1200,800"],
            }
            capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        except BaseException:
            self._end_driver()
            raise
        self.session = f"/session/{session['sessionId']}"
        self._call("POST", self.session + "/timeouts", {"script": 60000, "pageLoad": 60000})

    def _read_port(self):
        """chromedriver takes a free port and prints it."""
        for line in self.driver.stdout:
            if match := re.search(r"started successfully on port (\d+)", line):
                return match[1]
        raise Refused("chromedriver ended before it listened")

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise Refused(json.load(error)["value"]["message"].splitlines()[0]) from None

    def _end_driver(self):
        self.driver.terminate()
        self.driver.wait(timeout=30)
        self.driver.stdout.close()
        self.profile.cleanup()

    def close(self):
        try:
            self._call("DELETE", self.session)
        finally:
            self._end_driver()

    # ---- what a person does and sees ----

    def open(self, url):
        self._call("POST", self.session + "/url", {"url": url})

    def run(self, script, *arguments):
        """The value of a JavaScript function body; a promise is waited for."""
        return self._call("POST", self.session + "/execute/sync", {"script": script, "args": arguments})

    def find(self, selector):
        found = self._call("POST", self.session + "/element", {"using": "css selector", "value": selector})
        return f"{self.session}/element/{found[ELEMENT]}"

    def click(self, selector):
        self._call("POST", self.find(selector) + "/click", {})

    def type(self, selector, text):
        self._call("POST", self.find(selector) + "/value", {"text": text})

    def press(self, key):
        strokes = [{"type": kind, "value": KEYS[key]} for kind in ("keyDown", "keyUp")]
        self._call("POST", self.session + "/actions", {"actions": [{"type": "key", "id": "keys", "actions": strokes}]})

    def text(self, selector):
        """Text of the last element that fits, empty when none does."""
        return self.run(
            "const last = [...document.querySelectorAll(arguments[0])].pop(); return last ? last.textContent : ''",
            selector,
        )

    def shown(self, selector):
        return self.run(
            "const e = document.querySelector(arguments[0]); return e !== null && e.checkVisibility()", selector
        )

    def console_errors(self):
        """Error messages since the last call."""
        entries = self._call("POST", self.session + "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def devtools(self, command, **parameters):
        return self._call("POST", self.session + "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self._call("GET", self.session + "/screenshot")))
