"""A real headless Chromium, driven over the WebDriver protocol through chromedriver; no library needed."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 180  # seconds for what takes one or two; only a hang is to be ended by it
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip
KEYS = {"left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015", "escape": "\ue00c", "enter": "\ue007"}


def require_browser() -> tuple[str, str]:
    """Paths of Chromium and chromedriver. Without them the tests skip, or fail where STVIDEO_REQUIRE_BROWSER is set."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium and driver:
        return chromium, driver
    message = "no chromium and chromedriver here (Debian: apt-get install chromium chromium-driver)"
    if os.environ.get("STVIDEO_REQUIRE_BROWSER"):
        pytest.fail(message)
    pytest.skip(message)


class Browser:
    """One browser window; use it as a context manager."""

    def __init__(self, width: int = 1360, height: int = 1000, dark: bool = False) -> None:
        chromium, driver = require_browser()
        # Chromium's last processes may still write there while the folder is being removed.
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._log = Path(self._profile.name) / "driver.log"
        self._driver = subprocess.Popen(
            [driver, "--port=0", f"--log-path={self._log}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._port = self._find_port()
        flags = [*FLAGS, f"--window-size={width},{height}"]
        if dark:
            flags.append("--blink-settings=preferredColorScheme=0")
        try:
            self._session = self._start(chromium, flags)
        except BaseException:
            self._end()
            raise

    def _start(self, chromium: str, flags: list[str]) -> str:
        """The address of a new session. On a machine that is too busy, Chromium may need a second attempt to start."""
        for attempt in ("first", "second"):
            options = {"binary": chromium, "args": [*flags, f"--user-data-dir={self._profile.name}/{attempt}"]}
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            try:
                answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
                return f"/session/{answer['sessionId']}"
            except (AssertionError, TimeoutError) as error:
                problem = error
        raise problem

    def _find_port(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if "started successfully on port" in line:
                return int(line.rsplit("port", 1)[1].strip(" .\n"))
        raise RuntimeError("chromedriver did not start")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:500]) from None

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call("DELETE", self._session)
        finally:
            self._end()

    def _end(self) -> None:
        self._driver.terminate()
        try:
            self._driver.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._driver.kill()
            self._driver.wait()
        self._profile.cleanup()

    def open(self, path: Path) -> None:
        """Open a local page and wait until it has drawn itself."""
        self._call("POST", f"{self._session}/url", {"url": path.resolve().as_uri()})
        begin = time.monotonic()
        while time.monotonic() - begin < PATIENCE:
            if self.run("return document.body.dataset.ready === 'true'"):
                return
            time.sleep(0.05)
        raise AssertionError(f"the page did not get ready: {self.console()}")

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a piece of JavaScript returns."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector: str) -> str:
        found = self._call("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        return found[ELEMENT]

    def click(self, selector: str) -> None:
        """A real click in the middle of an element."""
        self._call("POST", f"{self._session}/element/{self.find(selector)}/click", {})

    def text(self, selector: str) -> str:
        return self._call("GET", f"{self._session}/element/{self.find(selector)}/text")

    def press(self, *keys: str) -> None:
        """Real key presses, names from `KEYS` or single characters."""
        codes = [KEYS.get(key, key) for key in keys]
        actions = [{"type": kind, "value": code} for code in codes for kind in ("keyDown", "keyUp")]
        self._call("POST", f"{self._session}/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def point(self, x: float, y: float, click: bool = False) -> None:
        """Move the mouse to a place in the window, and click there if wanted."""
        actions: list[dict[str, Any]] = [{"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}]
        if click:
            actions += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        body = {"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]}
        self._call("POST", f"{self._session}/actions", body)

    def console(self) -> list[str]:
        """What the page has complained about."""
        return [line["message"] for line in self._call("POST", f"{self._session}/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the browser started."""
        log = self._call("POST", f"{self._session}/se/log", {"type": "performance"})
        events = [json.loads(line["message"])["message"] for line in log]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self._call("GET", f"{self._session}/screenshot")))
        return path
