"""The smaller pages: one block with both sides, a list of blocks, the runs below a prefix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from seiops.evidence.advice import blocks
from seiops.evidence.blocks import LAYER_NAMES, Difference
from seiops.evidence.oneblock import BlockView
from seiops.evidence.render.charts import number, stacked
from seiops.evidence.render.html import Html, Inner, document, join, tag
from seiops.evidence.render.markdown import span, verdict_line
from seiops.evidence.render.webpage import blocks_section, payload, table
from seiops.evidence.summary import RunInfo, Summary, cut

ANSWER_CHARS = 64 * 1024
VALUE_CHARS = 16 * 1024
SHOWN_DIFFERENCES = 500


def block_page(view: BlockView) -> str:
    verdict = view.finding.verdict
    facts = [("Compared", view.timestamp or "not told"), ("Transactions", number(view.finding.txs)),
             ("State keys checked", number(view.finding.keys))]  # fmt: skip
    banner = tag(
        "section",
        tag("div", tag("span", "✓" if verdict == "clean" else "✕" if verdict == "diverged" else "!", class_="sign", aria_hidden="true"),
            tag("div", tag("h1", f"Block {number(view.height)}"), tag("p", verdict_line(view) + ".", class_="headline")), class_="word"),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts), class_="facts"),
        class_=f"banner is-{verdict if verdict in ('clean', 'diverged') else 'incomplete'} one",
    )  # fmt: skip
    parts = (
        banner,
        _meaning(view),
        _sides("Both sides", view.finding.differences),
        _before(view),
        _sides("Where the traces part", view.report.parted if view.report is not None else []),
        _sources(view),
        *_answers(view),
    )
    return document(f"Block {view.height} · {view.place}", view.place, join(*parts))


def _meaning(view: BlockView) -> Html | None:
    told = [tag("div", tag("dt", name), tag("dd", text)) for name, text in view.meanings()]
    error = tag("p", "Not evaluated: ", tag("code", view.finding.error), class_="note") if view.finding.error else None
    if not told and error is None:
        return None
    return tag("section", tag("h2", "What it means"), tag("div", tag("dl", *told), class_="words"), error, id="meaning")


def _sides(heading: str, differences: Sequence[Difference]) -> Html | None:
    if not differences:
        return None
    rows = [
        (f"{LAYER_NAMES[one.layer]}: {one.kind}", _where(one), *marked(one.shadow, one.canonical))
        for one in differences[:SHOWN_DIFFERENCES]
    ]
    left = len(differences) - len(rows)
    more = tag("p", f"{number(left)} more are in the JSON form of this report.", class_="note") if left > 0 else None
    made = table(
        ("what", "where", "shadow", "canonical"), rows, caption="Each difference with the values of both nodes"
    )
    return tag("section", tag("h2", heading), tag("div", made, class_="scroll sides"), more)


def _where(one: Difference) -> Html:
    slot = join(tag("br"), tag("code", one.slot)) if one.slot else None
    return join(tag("code", one.place), slot)


def marked(shadow: str, canonical: str) -> tuple[Html, Html]:
    """Both values with the part in which they differ marked; what they share at both ends stays plain."""
    shadow, canonical = (cut(value, VALUE_CHARS) for value in (shadow, canonical))
    start = 0
    least = min(len(shadow), len(canonical))
    while start < least and shadow[start] == canonical[start]:
        start += 1
    end = 0
    while end < least - start and shadow[-1 - end] == canonical[-1 - end]:
        end += 1
    ours, theirs = (
        tag(
            "code",
            value[:start],
            tag("mark", middle) if (middle := value[start : len(value) - end]) else None,
            value[len(value) - end :],
        )
        for value in (shadow, canonical)
    )
    return ours, theirs


def _before(view: BlockView) -> Html | None:
    if (before := view.previous) is None:
        return None
    height, found = before
    note = tag("p", "Headers show the outcome of the block before, so that one was compared as well.", class_="note")
    return _sides(f"The block before: {number(height)}", found) or tag(
        "section",
        tag("h2", f"The block before: {number(height)}"),
        tag("p", "Its receipts and state agree.", class_="none"),
        note,
    )


def _sources(view: BlockView) -> Html:
    items: list[Inner] = [join("page ", tag("code", one.key), f": {one.finding.verdict}") for one in view.said]
    if view.report is not None:
        items.append(join("report ", tag("code", view.report.key)))
        items += [f"not captured: {error}" for error in view.report.capture_errors]
    return tag(
        "section",
        tag("h2", "Where this stands"),
        tag("ul", *(tag("li", one) for one in items), class_="plainlist"),
        id="sources",
    )


def _answers(view: BlockView) -> Iterator[Html]:
    if view.report is None:
        return
    folded = []
    for name, raw in view.report.answers.items():
        text = raw.decode("utf-8", "replace")
        size = f"{name}, {number(len(raw))} bytes"
        folded.append(tag("details", tag("summary", size), tag("pre", tag("code", text[:ANSWER_CHARS])),
                          tag("p", "Cut here; --json has all of it.", class_="note") if len(text) > ANSWER_CHARS else None))  # fmt: skip
    if folded:
        yield tag("section", tag("h2", "What the nodes answered"), *folded, id="answers")


def blocks_page(found: Summary, about: str) -> str:
    head = tag("section", tag("h1", blocks(found.blocks)), tag("p", about, class_="note"))
    return document(f"Blocks · {found.place}", found.place, join(head, blocks_section(found)), payload=payload(found))


def runs_page(place: str, runs: Sequence[RunInfo]) -> str:
    order = ("clean", "vacuous", "gap", "indeterminate", "diverged")
    rows: list[list[Inner]] = []
    for run in runs:
        counts = run.counts or {}
        shares = [(name, counts.get(name, 0)) for name in order]
        said = (
            ", ".join(f"{number(count)} {name}" for name, count in shares if count)
            or f"{number(run.blocks)} blocks, not counted"
        )
        rows.append([
            run.run or "no manifest", run.folder or ".", run.mode, run.chain or "–", span(run), number(run.pages),
            stacked(shares, sum(counts.values())) if counts else "–", said,
            ": ".join(filter(None, (run.state, run.reason))), "sealed" if run.sealed else "no seals",
        ])  # fmt: skip
    names = ("run", "folder", "mode", "chain", "heights", "pages", "", "verdicts", "state", "evidence")
    made = (
        table(names, rows, caption="Runs below this prefix")
        if rows
        else tag("p", "Nothing was published here.", class_="none")
    )
    return document(
        f"Runs · {place}", place, tag("section", tag("h1", "Runs"), tag("div", made, class_="scroll"), id="runs")
    )
