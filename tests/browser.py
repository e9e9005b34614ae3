"""A real headless browser, driven over a pipe by its own DevTools protocol: no driver, no port, no network."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from itertools import count
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def executable():
    """The browser of this machine, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def open_page(path, *, width=1100, height=900):
    """A `Tab` that shows a file, in a browser that has no network where Linux lets us take it away."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The protocol wants the pipes as file descriptors 3 and 4, which only the shell can promise.
        flags = "--headless --no-sandbox --disable-gpu --no-first-run --hide-scrollbars --remote-debugging-pipe"
        command = f'exec "$0" {flags} "--user-data-dir={profile}" about:blank 3<&{theirs_in} 4>&{theirs_out}'
        process = subprocess.Popen(
            [*_alone(), "bash", "-c", command, executable()],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            with os.fdopen(ours_out, "wb") as out, os.fdopen(ours_in, "rb") as back:
                yield Tab(out, back, Path(path).resolve().as_uri(), (width, height))
        finally:
            process.terminate()
            process.wait(timeout=20)


def _alone():
    """The beginning of a command that runs in a network namespace of its own, where that is allowed."""
    command = ["unshare", "-rn"]
    able = (
        shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    )
    return command if able else []


class Tab:
    """One page. `requested` are the addresses that it asked for, `errors` what its console complained of."""

    def __init__(self, out, back, address, size):
        self._out, self._back, self._ids, self._session = out, back, count(1), None
        self.requested, self.errors, self._loaded = [], [], False
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self(f"{domain}.enable")
        self.resize(*size)
        self("Page.navigate", url=address)
        while not self._loaded:
            self._receive()

    def __call__(self, method, **params):
        """The result of one call of the protocol."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def resize(self, width, height):
        """Give the page a screen of that many pixels."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page."""
        found = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self):
        """What is seen of the page as text."""
        return self.evaluate("document.body.innerText")

    def click(self, selector):
        """A real click of the mouse in the middle of an element."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        code = f"(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelector({json.dumps(selector)})"
        x, y = self.evaluate(f"{code}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, *, selector=None):
        """PNG bytes of the whole page, or of one element."""
        code = f"document.querySelector({json.dumps(selector or 'html')}).getBoundingClientRect()"
        box = self.evaluate(
            f"(b => ({{x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}}))({code})"
        )
        found = self("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip={**box, "scale": 1})
        return base64.b64decode(found["data"])

    def pdf(self):
        """The page as it is printed."""
        return base64.b64decode(
            self("Page.printToPDF", preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69)["data"]
        )

    def _receive(self):
        raw = bytearray()
        while (byte := self._back.read(1)) not in (b"\0", b""):
            raw += byte
        assert raw, "the browser ended"
        message = json.loads(raw)
        params = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif message.get("method") == "Log.entryAdded":
            self.errors.append(params["entry"]["text"])
        self._loaded |= message.get("method") == "Page.loadEventFired"
        return message
