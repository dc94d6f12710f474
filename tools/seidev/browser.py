"""A real browser for tests: found or installed once, driven over its own debugging protocol.

Pages are loaded from disk with the network cut off, so a page that needs anything from elsewhere shows it here. Everything the
browser complains about (console errors, exceptions, refused scripts and styles) is kept for the test to look at.

    python -m seidev.browser            find or install it, print where it is
    python -m seidev.browser shot PAGE PICTURE [light|dark [HEIGHT]]
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from seidev.processes import ToolError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
INSTALL_SECONDS = 600
START_SECONDS = 60.0
ANSWER_SECONDS = 60.0
_NO_BROWSER = "put Chromium or Chrome on PATH, or name its program in SEIOPS_BROWSER"


def found() -> Path | None:
    """The program `SEIOPS_BROWSER` names, else one on PATH. Raises ToolError for a name that is no program."""
    given = os.environ.get("SEIOPS_BROWSER", "")
    if given:
        path = shutil.which(given)
        if path is None:
            raise ToolError(f"SEIOPS_BROWSER={given} is no program that can be run: correct or unset it")
        return Path(path)
    return next((Path(path) for name in NAMES if (path := shutil.which(name))), None)


def obtain() -> Path:
    """The browser, installed from the distribution where that can be done without asking. Raises ToolError with the reason."""
    path = found()
    if path is not None:
        return path
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise ToolError(f"no browser, and none can be installed here (that takes apt-get and root): {_NO_BROWSER}")
    with (Path(tempfile.gettempdir()) / "seiops-browser.lock").open("w") as lock:
        # test workers ask at the same time, and apt-get does not wait for its own lists
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found() is None:
            print("installing the distribution's chromium", file=sys.stderr, flush=True)
            _apt("update")
            _apt("install", "--yes", "--no-install-recommends", "chromium")
    path = found()
    if path is None:
        raise ToolError(f"the chromium package brought no program: {_NO_BROWSER}")
    return path


def _apt(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=120", "-qq", *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise ToolError(f"`apt-get {arguments[0]}` took more than {INSTALL_SECONDS} s: {_NO_BROWSER}") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ToolError(f"`apt-get {arguments[0]}` failed ({last}): {_NO_BROWSER}")


class BrowserError(Exception):
    """What the browser refused, in its words."""


@dataclass
class Tab:
    """One page. `complaints` is what the browser found wrong with it, `requests` every URL it asked for."""

    socket: aiohttp.ClientWebSocketResponse
    session: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    _last: int = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol. Raises BrowserError."""
        self._last += 1
        number = self._last
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self.socket.send_json({"id": number, "sessionId": self.session, "method": method, "params": params})
        async with asyncio.timeout(ANSWER_SECONDS):
            reply = await answer
        if "error" in reply:
            raise BrowserError(f"{method}: {reply['error'].get('message')}")
        result: dict[str, Any] = reply.get("result", {})
        return result

    def heard(self, message: dict[str, Any]) -> None:
        if "id" in message:
            waiting = self._waiting.pop(message["id"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
            return
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self.loaded.set()
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params.get("type") in ("error", "warning", "assert"):
                self.complaints.append(str(params.get("args")))
            case "Log.entryAdded" if params["entry"].get("level") in ("error", "warning"):
                self.complaints.append(f"{params['entry'].get('source')}: {params['entry'].get('text')}")
            case "Audits.issueAdded":
                self.complaints.append(str(params["issue"]))
            case _:
                pass

    async def open(self, page: Path) -> None:
        """Loads a page from disk; its path is absolute. Raises BrowserError."""
        self.loaded.clear()
        answer = await self.call("Page.navigate", url=page.as_uri())
        if answer.get("errorText"):
            raise BrowserError(f"{page}: {answer['errorText']}")
        async with asyncio.timeout(ANSWER_SECONDS):
            await self.loaded.wait()

    async def value(self, expression: str) -> Any:
        """What an expression gives, as JSON. Raises BrowserError with the page's exception."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def type(self, selector: str, text: str) -> None:
        """Types as a person does: into the field that has the focus."""
        await self.value(f"document.querySelector({selector!r}).focus()")
        for character in text:
            await self.call("Input.dispatchKeyEvent", type="keyDown", text=character, key=character)
            await self.call("Input.dispatchKeyEvent", type="keyUp", key=character)

    async def scheme(self, name: str) -> None:
        """`light` or `dark`."""
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    async def size(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def picture(self, *, clip_height: int = 0) -> bytes:
        """PNG of the whole page, or of its upper part."""
        metrics = await self.call("Page.getLayoutMetrics")
        content = metrics["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": content["width"], "height": clip_height or content["height"], "scale": 1}
        shot = await self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def browsing(program: Path) -> AsyncIterator[Tab]:
    """A tab of a fresh browser without any network; browser and profile are gone afterwards. Raises ToolError, BrowserError."""
    with tempfile.TemporaryDirectory(prefix="seiops-browser-", ignore_cleanup_errors=True) as profile:
        # root in a container cannot have the sandbox; the pages are our own and the network is off
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
                 "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-port=0", f"--user-data-dir={profile}"]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            program, *flags, "about:blank", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        try:
            address = await _address(process.stderr)
            drain = asyncio.create_task(_drain(process.stderr))
            async with aiohttp.ClientSession() as http, http.ws_connect(address, max_msg_size=0) as socket:
                tab = await _tab(socket)
                listening = asyncio.create_task(_listen(socket, tab))
                try:
                    await _prepare(tab)
                    yield tab
                finally:
                    listening.cancel()
                    drain.cancel()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), 10)
                except TimeoutError:
                    process.kill()
                    await process.wait()


async def _address(stderr: asyncio.StreamReader) -> str:
    said: list[str] = []
    try:
        async with asyncio.timeout(START_SECONDS):
            while raw := await stderr.readline():
                line = raw.decode("utf-8", "replace").strip()
                if line.startswith("DevTools listening on "):
                    return line.removeprefix("DevTools listening on ")
                said.append(line)
    except TimeoutError:
        pass
    raise ToolError(f"the browser did not start: {' | '.join(filter(None, said[-6:])) or 'it said nothing'}")


async def _drain(stderr: asyncio.StreamReader) -> None:
    while await stderr.read(65536):
        pass


async def _tab(socket: aiohttp.ClientWebSocketResponse) -> Tab:
    async def ask(number: int, method: str, **params: Any) -> dict[str, Any]:
        await socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                message: dict[str, Any] = await socket.receive_json()
                if message.get("id") == number:
                    result: dict[str, Any] = message["result"]
                    return result

    target = await ask(-1, "Target.createTarget", url="about:blank")
    attached = await ask(-2, "Target.attachToTarget", targetId=target["targetId"], flatten=True)
    return Tab(socket, attached["sessionId"])


async def _listen(socket: aiohttp.ClientWebSocketResponse, tab: Tab) -> None:
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            tab.heard(message.json())


async def _prepare(tab: Tab) -> None:
    for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
        await tab.call(f"{domain}.enable")
    await tab.call(
        "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
    )


async def _shot(page: Path, scheme: str, clip_height: int) -> bytes:
    async with browsing(obtain()) as tab:
        await tab.size(1280, 900)
        await tab.scheme(scheme)
        await tab.open(page)
        for complaint in tab.complaints:
            print(complaint, file=sys.stderr)
        return await tab.picture(clip_height=clip_height)


def main() -> int:
    try:
        if sys.argv[1:2] == ["shot"]:
            page, picture, *rest = sys.argv[2:]
            scheme, height = [*rest, *("light", "0")[len(rest) :]]
            Path(picture).write_bytes(asyncio.run(_shot(Path(page).resolve(), scheme, int(height))))
        else:
            print(obtain())
    except (ToolError, BrowserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
