"""The report of a real comparison in a real browser: from disk, without a network, and with hostile content in it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from seidev import browser
from seidev.browser import Tab
from seidev.processes import ToolError
from seiops.objectstore import open_store
from support.evidence import SLOT, clean, put_run, receipts_differ, state_differs, undecided
from support.published_pair import publish

ATTACK = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"&\u2028"
ROWS = "document.querySelectorAll('#list tbody > tr:not(.detail)').length"


@pytest.fixture(scope="session")
def program() -> Path:
    try:
        return browser.obtain()
    except ToolError as error:
        pytest.skip(str(error))


@asynccontextmanager
async def opened(program: Path, page: Path) -> AsyncIterator[Tab]:
    """The page in a browser; at the end nothing may have been complained of, and nothing asked for but the page."""
    async with browser.browsing(program) as tab:
        await tab.size(1280, 900)
        await tab.open(page)
        yield tab
        assert tab.complaints == []
        assert [url for url in tab.requests if url != "about:blank"] == [page.as_uri()]


def report(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "seiops.cli", "report", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


async def made(page: Path, *arguments: str) -> Path:
    await asyncio.to_thread(report, *arguments, "-o", str(page))
    return page


async def text(tab: Tab, selector: str) -> Any:
    return await tab.value(f"document.querySelector({selector!r})?.innerText")


async def test_report_of_a_tampered_node(program: Path, tmp_path: Path) -> None:
    url = await publish(tmp_path)
    page = await made(tmp_path / "report.html", "summary", url)
    async with opened(program, page) as tab:
        assert await text(tab, "h1") == "Diverged"
        assert "5 blocks of 30 differ" in await text(tab, ".headline")
        assert await text(tab, ".f-diverged .value") == "5"
        assert await tab.value("document.querySelectorAll('#rate .column').length") == 30
        assert await tab.value("document.querySelectorAll('#rate .column .v-diverged').length") == 5
        kinds = await tab.value("[...document.querySelectorAll('#kinds tbody th')].map(th => th.innerText)")
        assert set(kinds) == {
            "receipts: gasUsed",
            "receipts: data",
            "receipts: log",
            "state: balance",
            "state: storage",
        }
        assert await tab.value("document.querySelectorAll('#contracts .bar').length") == 2
        heights = await tab.value("[...document.querySelectorAll('#list tbody th')].map(th => th.innerText)")
        assert heights == ["425", "430", "436", "440", "444"]
        assert "pills" not in await text(tab, "body")
        assert "checks" in await text(tab, "#runs")


async def test_filters_and_details(program: Path, tmp_path: Path) -> None:
    url = await publish(tmp_path)
    page = await made(tmp_path / "report.html", "summary", url)
    async with opened(program, page) as tab:
        await tab.type("#f-words", "storage")
        assert await tab.value(ROWS) == 1
        assert await text(tab, "#said") == "1 to 1 of 1 block, filtered from 5"
        await tab.value("document.querySelector('.open-row').click()")
        detail = await text(tab, ".detail")
        assert "Whole report" in detail
        assert f"--height {444}" in detail
        assert await tab.value("document.querySelectorAll('.detail mark').length") == 2
        await tab.value("document.querySelector('#f-reset').click()")
        assert await tab.value(ROWS) == 5
        await tab.type("#f-words", "no such thing")
        assert await text(tab, "#list") == "No block passes these filters."
        await tab.value("document.querySelector('#f-reset').click()")
        await tab.value("document.querySelector('.column[data-from=\"430\"]').dispatchEvent(new MouseEvent('click'))")
        assert await tab.value(ROWS) == 1


async def test_thousands_of_divergences_stay_usable(program: Path, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    bucket.mkdir()

    def line(height: int) -> dict[str, Any]:
        if height % 2:
            return clean(height)
        return state_differs(height, ("storage", f"0x{height % 700:040x}", SLOT, "0x01", "0x02"))

    await put_run(open_store(f"file://{bucket}"), range(1, 20_001), line)
    page = await made(tmp_path / "report.html", "summary", str(bucket))
    assert page.stat().st_size < 3_000_000
    async with opened(program, page) as tab:
        assert await tab.value(ROWS) == 25
        assert "of 3,000 blocks" in await text(tab, "#said")
        assert "7,000 further blocks" in await text(tab, "#blocks")
        await tab.value("document.querySelector('#next').click()")
        assert (await text(tab, "#said")).startswith("26 to 50 of ")
        await tab.type("#f-from", "100")
        await tab.type("#f-to", "120")
        assert await tab.value(ROWS) == 11


@pytest.mark.parametrize("command", ["summary", "divergence", "block"])
async def test_hostile_content_is_only_ever_text(program: Path, tmp_path: Path, command: str) -> None:
    bucket = tmp_path / "bucket"
    bucket.mkdir()

    def line(height: int) -> dict[str, Any]:
        if height == 5:
            return state_differs(5, (ATTACK, ATTACK, ATTACK, ATTACK, ATTACK + "2"))
        if height == 6:
            return undecided(6, ATTACK, ATTACK)
        return receipts_differ(height, (ATTACK, ATTACK, {"a": ATTACK})) if height == 7 else clean(height)

    hostile = [{"check": ATTACK, "traps": ATTACK, "state": ATTACK, "finding": ATTACK, "advice": ATTACK}]
    store, params = open_store(f"file://{bucket}"), {"prefix": ATTACK, "survey": ATTACK}
    await put_run(store, range(1, 11), line, params=params, preflight=hostile, ended=ATTACK)
    arguments = {
        "summary": ["summary"],
        "divergence": ["divergence", "--verdict", "all"],
        "block": ["divergence", "--height", "5"],
    }[command]
    page = await made(tmp_path / "report.html", arguments[0], str(bucket), *arguments[1:])
    async with opened(program, page) as tab:
        if command != "block":
            await tab.value("document.querySelectorAll('.open-row').forEach(button => button.click())")
        assert "onerror" in await text(tab, "main")
        assert await tab.value("document.querySelectorAll('main img, main script').length") == 0
        assert await tab.value("document.title") != "owned"


async def test_policy_of_the_page_refuses_foreign_scripts_styles_and_requests(program: Path, tmp_path: Path) -> None:
    """The guard behind the escaping: what got into the page all the same would not run."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    await put_run(open_store(f"file://{bucket}"), range(1, 11), clean)
    page = await made(tmp_path / "report.html", "summary", str(bucket))
    content = page.read_text()
    harm = "<script>document.title='owned'</script><style>body{display:none}</style><img src='http://127.0.0.1:9/x'>"
    page.write_text(content.replace("</main>", harm + "</main>"))
    async with browser.browsing(program) as tab:
        await tab.open(page)
        assert await tab.value("document.title") != "owned"
        assert await tab.value("getComputedStyle(document.body).display") == "block"
        assert sum("Content Security Policy" in complaint for complaint in tab.complaints) >= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_both_schemes_can_be_read(program: Path, tmp_path: Path, scheme: str) -> None:
    """Every text stands out from what is behind it by the 4.5 to 1 that accessibility rules ask for."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    lines = {3: receipts_differ(3, ("code", 0, 1)), 4: undecided(4, "rpc", "no")}
    await put_run(open_store(f"file://{bucket}"), [*range(1, 50), *range(60, 100)], lambda h: lines.get(h) or clean(h))
    page = await made(tmp_path / "report.html", "summary", str(bucket))
    async with opened(program, page) as tab:
        await tab.scheme(scheme)
        weak = await tab.value(CONTRAST)
        assert weak == []
        assert await tab.value("document.documentElement.scrollWidth <= window.innerWidth")
        await tab.size(400, 900)
        assert await tab.value("document.documentElement.scrollWidth <= window.innerWidth")


async def test_tables_and_controls_have_names(program: Path, tmp_path: Path) -> None:
    url = await publish(tmp_path)
    page = await made(tmp_path / "report.html", "summary", url)
    async with opened(program, page) as tab:
        bare = "[...document.querySelectorAll('input, select')].filter(field => !field.labels.length).length"
        assert await tab.value(bare) == 0
        headless = (
            "[...document.querySelectorAll('table')].filter(table => !table.querySelector('th[scope=col]')).length"
        )
        assert await tab.value(headless) == 0
        bare = "[...document.querySelectorAll('svg')].filter(svg => !svg.ariaHidden && !svg.ariaLabel).length"
        assert await tab.value(bare) == 0
        assert await tab.value("document.documentElement.lang") == "en"


async def test_page_can_be_read_without_scripts(program: Path, tmp_path: Path) -> None:
    url = await publish(tmp_path)
    page = await made(tmp_path / "report.html", "summary", url)
    async with browser.browsing(program) as tab:
        await tab.call("Emulation.setScriptExecutionDisabled", value=True)
        await tab.open(page)
        document = await tab.call("DOM.getDocument", depth=-1)
        found = await tab.call("DOM.querySelectorAll", nodeId=document["root"]["nodeId"], selector="#list tbody tr")
        assert len(found["nodeIds"]) == 5


async def test_one_block_with_both_nodes_answers(program: Path, tmp_path: Path) -> None:
    url = await publish(tmp_path, survey=False)
    page = await made(tmp_path / "block.html", "divergence", url, "--height", "425")
    async with opened(program, page) as tab:
        assert await text(tab, "h1") == "Block 425"
        assert "21546" in await text(tab, ".sides")
        assert await tab.value("document.querySelectorAll('#answers details').length") == 4


def test_named_browser_that_is_no_program_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEIOPS_BROWSER", "/no/such/browser")
    with pytest.raises(ToolError, match="SEIOPS_BROWSER"):
        browser.obtain()


def test_browser_that_cannot_be_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SEIOPS_BROWSER", raising=False)
    assert shutil.which("apt-get") is None
    with pytest.raises(ToolError, match="put Chromium or Chrome on PATH"):
        browser.obtain()


def test_browser_is_found_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "google-chrome"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/nowhere")
    monkeypatch.delenv("SEIOPS_BROWSER", raising=False)
    assert browser.found() == program


CONTRAST = """(() => {
  const parse = (colour) => {
    const n = colour.match(/[\\d.]+/g).map(Number);
    return colour.startsWith('color(srgb') ? [n[0] * 255, n[1] * 255, n[2] * 255, n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const weak = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest('script, style, .skip, :disabled, svg')) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(getComputedStyle(element).fontSize);
    if (ratio < (size >= 24 ? 3 : 4.5)) weak.push(`${element.tagName}.${element.className}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(weak)];
})()"""
