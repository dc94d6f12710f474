"""The report of a run as one page: verdict, what to do, charts beside their tables, and every block that is not clean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from seiops.evidence.advice import Advice, advice, headline
from seiops.evidence.blocks import CODES, LAYER_NAMES, LAYERS, SEVERITY
from seiops.evidence.render.charts import STACK, bar, legend, match_rate, number, percent, stacked
from seiops.evidence.render.html import Html, Inner, document, join, tag
from seiops.evidence.summary import Block, Summary, cut

TOP_NAMES = 12
WITH_SAMPLES = 1_000
FIRST_ROWS = 25
_WORDS = {
    "clean": ("✓", "Clean"),
    "diverged": ("✕", "Diverged"),
    "incomplete": ("!", "Incomplete"),
    "empty": ("?", "Nothing compared"),
}
_MEANINGS = {
    "clean": "every layer that was asked for ran and agreed",
    "diverged": "something differs between the two nodes",
    "indeterminate": "a check could not be carried out, after several attempts",
    "vacuous": "only headers were compared, and both nodes served the same ones: no evidence",
    "gap": "the height could not be read for too long and was passed over",
    "missing": "no page speaks of the height",
}


def summary_page(summary: Summary) -> str:
    title = f"{_WORDS[summary.verdict][1]} · {summary.place}"
    sections = (
        _banner(summary),
        _advice(advice(summary)),
        _rate(summary),
        tag("div", _layers(summary), _kinds(summary), _contracts(summary), _reasons(summary), class_="pair"),
        _open_ends(summary),
        blocks_section(summary),
        _digests(summary),
        _runs(summary),
        _problems(summary),
        _reading(),
    )
    return document(title, summary.place, join(*sections), payload=payload(summary))


# --- verdict ----------------------------------------------------------------------------------------------------------


def _banner(summary: Summary) -> Html:
    sign, word = _WORDS[summary.verdict]
    counts, total = summary.counts, summary.blocks + summary.missing
    chains = ", ".join(dict.fromkeys(run.chain for run in summary.runs if run.chain))
    facts: list[tuple[str, str]] = []
    if chains:
        facts.append(("Chain", chains))
    if summary.blocks:
        facts.append(("Heights", f"{number(summary.ledger.first)} to {number(summary.ledger.last)}"))
    if summary.earliest:
        facts.append(("Compared", _when(summary.earliest, summary.latest)))
    if summary.pages:
        facts.append(("Pages", _pages(summary)))
        facts.append(("Checked", f"{number(summary.txs)} transactions, {number(summary.keys)} state keys"))
    figures = [_figure("blocks compared", number(summary.blocks), "")]
    figures += [
        _figure(name, number(count), name, percent(count, total))
        for name, count in (*counts.items(), ("missing", summary.missing))
    ]
    return tag(
        "section",
        tag("div", tag("span", sign, class_="sign", aria_hidden="true"),
            tag("div", tag("h1", word), tag("p", headline(summary) + ".", class_="headline")), class_="word"),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts), class_="facts"),
        tag("ul", *figures, class_="figures"),
        class_=f"banner is-{summary.verdict}",
    )  # fmt: skip


def _when(earliest: str, latest: str) -> str:
    def plain(text: str) -> str:
        return text[:16].replace("T", " ")

    return plain(earliest) + " UTC" if earliest == latest else f"{plain(earliest)} to {plain(latest)} UTC"


def _pages(summary: Summary) -> str:
    sealed = f"{number(summary.seals_held)} held their seal" if summary.seals_held else "without seals"
    return f"{number(summary.pages)}, {sealed}"


def _figure(name: str, value: str, style: str, share: str = "") -> Html:
    zero = " none" if value == "0" else ""
    inner = (tag("span", value, class_="value"), tag("span", name, class_="name"), tag("span", share, class_="share"))
    return tag("li", *inner, class_=f"figure f-{style or 'all'}{zero}")


def _advice(found: Sequence[Advice]) -> Html | None:
    if not found:
        return None
    lists = []
    for weight, heading in (("act", "What to do next"), ("know", "What to know")):
        items = [
            tag("li", one.text, tag("code", one.command, class_="command") if one.command else None)
            for one in found
            if one.weight == weight
        ]
        if items:
            lists.append(tag("div", tag("h2", heading), tag("ol" if weight == "act" else "ul", *items)))
    return tag("section", *lists, class_="advice")


# --- charts with their tables -----------------------------------------------------------------------------------------


def _rate(summary: Summary) -> Html | None:
    columns = summary.columns()
    if not columns:
        return None
    there = [verdict for verdict in STACK if any(column.counts[verdict] for column in columns)]
    width = columns[0].blocks
    each = f"Each column stands for {number(width)} {'height' if width == 1 else 'heights'}"
    note = f"{each}; rare verdicts are drawn larger than their share, so that they can be seen."
    rows = [
        (number(column.start), number(column.end), *(number(column.counts[verdict]) for verdict in there),
         percent(column.counts["clean"], column.blocks))
        for column in columns
    ]  # fmt: skip
    made = table(("from", "to", *there, "match rate"), rows, caption="Verdicts by height")
    return tag(
        "section",
        tag("h2", "Match rate by height"),
        legend(there),
        match_rate(columns),
        tag("p", note, " ", tag("span", "Click a column to list its blocks.", class_="scripted"), class_="note"),
        tag("details", tag("summary", "The figures"), tag("div", made, class_="scroll")),
        id="rate",
    )


def _layers(summary: Summary) -> Html:
    largest = max([summary.layers[layer] + summary.undecided[layer] for layer in LAYERS] + [1])
    rows = [
        (f"{LAYER_NAMES[layer]} ({layer})",
         stacked((("diverged", summary.layers[layer]), ("indeterminate", summary.undecided[layer])), largest),
         number(summary.layers[layer]), number(summary.undecided[layer]))
        for layer in LAYERS
    ]  # fmt: skip
    made = table(
        ("layer", "", "diverged", "undecided"),
        rows,
        caption="Blocks in which a layer differs or could not be evaluated",
    )
    return tag("section", tag("h2", "Divergences by layer"), made, id="layers")


def _kinds(summary: Summary) -> Html:
    return _tally("Divergences by kind", "kind", "Which fields differ, and in how many blocks",
                  summary.kinds.top(TOP_NAMES), len(summary.kinds.differences), "kinds")  # fmt: skip


def _contracts(summary: Summary) -> Html:
    return _tally("Divergences by contract", "contract", "Accounts whose state differs, and in how many blocks",
                  summary.contracts.top(TOP_NAMES), len(summary.contracts.differences), "contracts")  # fmt: skip


def _tally(heading: str, what: str, caption: str, top: list[tuple[str, int, int]], in_all: int, identity: str) -> Html:
    largest = max((count for _, count, _ in top), default=1)
    rows = [
        (
            tag("code", name) if identity == "contracts" else name,
            bar(count, largest, "diverged"),
            number(count),
            number(blocks),
        )
        for name, count, blocks in top
    ]
    inner: list[Inner] = [table((what, "", "differences", "blocks"), rows, caption=caption) if rows else _none()]
    if in_all > len(top):
        inner.append(tag("p", f"{number(in_all - len(top))} more are in the JSON form of this report.", class_="note"))
    return tag("section", tag("h2", heading), *inner, id=identity)


def _reasons(summary: Summary) -> Html:
    reasons = sorted(summary.reasons.items(), key=lambda item: -item[1].blocks)[:TOP_NAMES]
    largest = max((one.blocks for _, one in reasons), default=1)
    rows = [
        (name, bar(one.blocks, largest, "gap" if name == "unreadable" else "indeterminate"), number(one.blocks),
         join(tag("b", number(one.height)), ": ", cut(one.error) or "no error recorded"))
        for name, one in reasons
    ]  # fmt: skip
    made = (
        table(("reason", "", "blocks", "for example"), rows, caption="Why blocks could not be decided")
        if rows
        else _none()
    )
    return tag("section", tag("h2", "Undecided, by reason"), made, id="reasons")


def _open_ends(summary: Summary) -> Html:
    spans, in_all = summary.open_spans()
    rows = [
        (
            tag("span", span.verdict, class_=f"pill p-{span.verdict}"),
            number(span.start),
            number(span.end),
            number(span.blocks),
        )
        for span in spans
    ]
    made = (
        table(("what", "from", "to", "blocks"), rows, caption="Heights without an answer")
        if rows
        else _none("No gap, no hole, nothing undecided.")
    )
    note = (
        tag("p", f"{number(in_all - len(spans))} further ranges are not shown.", class_="note")
        if in_all > len(spans)
        else None
    )
    return tag("section", tag("h2", "Gaps and open ends"), tag("div", made, class_="scroll short"), note, id="open")


# --- blocks -----------------------------------------------------------------------------------------------------------


def blocks_section(summary: Summary) -> Html:
    listed = summary.listed()
    if not listed:
        return tag("section", tag("h2", "Blocks that are not clean"), _none("There is none."), id="blocks")
    rows = [
        (number(block.height), tag("span", block.verdict, class_=f"pill p-{block.verdict}"), ", ".join(block.layers),
         ", ".join(block.kinds) or block.reason, number(block.differences))
        for block in sorted(listed, key=lambda one: (-CODES[one.verdict], one.height))[:FIRST_ROWS]
    ]  # fmt: skip
    made = table(("height", "verdict", "layers", "what", "differences"), rows, caption="Blocks that are not clean")
    left = summary.not_clean - len(listed)
    notes = [tag("p", f"{number(left)} further blocks are not in this page (consensus differences come first): ",
                 tag("code", f"seiops report divergence {summary.place} --from HEIGHT --to HEIGHT"), class_="note") if left > 0 else None,
             tag("p", f"Without scripts only the first {FIRST_ROWS} are shown.", class_="note plain")]  # fmt: skip
    return tag("section", tag("h2", "Blocks that are not clean"), *notes,
               tag("div", made, id="list", class_="scroll"), id="blocks")  # fmt: skip


def payload(summary: Summary) -> dict[str, Any]:
    """What the page's script lists: texts once, blocks as arrays (the order is the script's `FIELDS`)."""
    texts: dict[str, int] = {}

    def text(value: str) -> int:
        return texts.setdefault(value, len(texts))

    def block(position: int, one: Block) -> list[Any]:
        samples = one.samples if position < WITH_SAMPLES else []
        return [one.height, text(one.verdict), "".join(one.layers), [text(kind) for kind in one.kinds],
                [text(address) for address in one.contracts], one.differences, text(one.reason), text(one.error), one.txs,
                int(one.consensus),
                [[s.layer, text(s.kind), text(s.place), text(s.slot), text(s.shadow), text(s.canonical), int(s.consensus)]
                 for s in samples]]  # fmt: skip

    blocks = [block(position, one) for position, one in enumerate(summary.listed())]
    order = list(reversed(SEVERITY))
    return {"place": summary.place, "layers": LAYER_NAMES, "order": order, "blocks": blocks, "texts": list(texts)}


# --- what stands behind -----------------------------------------------------------------------------------------------


def _digests(summary: Summary) -> Html | None:
    if not summary.digests:
        return None
    words = {True: "clean", False: "diverged", None: "indeterminate"}
    rows = [
        (number(one.height), one.normalization, tag("span", {True: "match", False: "mismatch", None: "unreadable"}[one.match],
         class_=f"pill p-{words[one.match]}"), one.problem or ", ".join(one.differing) or "every bucket agrees")
        for one in summary.digests
    ]  # fmt: skip
    return tag(
        "section",
        tag("h2", "Whole-state digests"),
        table(("height", "normalization", "verdict", "about"), rows),
        id="digests",
    )


def _runs(summary: Summary) -> Html:
    rows = [
        (run.run or "no manifest", run.mode, "sealed" if run.sealed else "without seals", ": ".join(filter(None, (run.state, run.reason))),
         f"{number(run.first)} to {number(run.last)}" if run.first is not None and run.last is not None else "–",
         number(run.pages), _when(run.started, run.ended) if run.started else "–")
        for run in summary.runs
    ]  # fmt: skip
    made = table(
        ("run", "mode", "evidence", "state", "heights", "pages", "from, to"), rows, caption="Runs in this folder"
    )
    return tag("section", tag("h2", "Runs"), tag("div", made, class_="scroll"), *_run_details(summary), id="runs")


def _run_details(summary: Summary) -> Iterator[Html]:
    for run in summary.runs:
        if run.preflight:
            rows = [
                (tag("span", str(check.get("state", "")), class_=f"pill s-{str(check.get('state', '')).replace(' ', '-')}"),
                 str(check.get("check", "")), str(check.get("traps", "")), str(check.get("finding", "")), str(check.get("advice", "")))
                for check in run.preflight
            ]  # fmt: skip
            failed = sum(check.get("state") == "failed" for check in run.preflight)
            said = f"Preflight of {run.run}: {len(run.preflight)} checks, {failed} failed"
            made = table(("state", "check", "traps", "finding", "what to do"), rows)
            yield tag("details", tag("summary", said), tag("div", made, class_="scroll"))
        if run.nodes:
            names = list(dict.fromkeys(name for node in run.nodes.values() for name in node))
            sides = [
                [side, *(tag("code", str(node.get(name, "–"))) for name in names)]
                for side, node in sorted(run.nodes.items())
            ]
            nodes = tag("div", table(("side", *names), sides), class_="scroll")
            yield tag("details", tag("summary", f"Nodes of {run.run}"), nodes)
        if run.params:
            params = table(
                ("param", "value"),
                [(name, tag("code", _as_written(value))) for name, value in sorted(run.params.items())],
            )
            yield tag("details", tag("summary", f"Parameters of {run.run}"), params)


def _problems(summary: Summary) -> Html | None:
    if not summary.problem_count:
        return None
    more = summary.problem_count - len(summary.problems)
    return tag("section", tag("h2", "Problems with the published objects"),
               tag("ul", *(tag("li", problem) for problem in summary.problems), class_="plainlist"),
               tag("p", f"{number(more)} more.", class_="note") if more else None, id="problems")  # fmt: skip


def _reading() -> Html:
    verdicts = [
        tag("div", tag("dt", tag("span", name, class_=f"pill p-{name}")), tag("dd", text))
        for name, text in _MEANINGS.items()
    ]
    layers = [
        tag("div", tag("dt", f"{LAYER_NAMES[layer]} ({layer})"), tag("dd", text))
        for layer, text in (
            ("0", "header hashes; they come from the network and show the outcome of the block before"),
            (
                "1",
                "receipts: code, gas, data; log, events and codespace are compared and told apart, since the chain does not agree on them",
            ),
            ("2", "storage, balance, code and nonce of the accounts a block touched"),
            ("H", "hashes of everything a block wrote and returned, from seid's own log"),
        )
    ]
    return tag(
        "section",
        tag("h2", "How to read this"),
        tag("div", tag("dl", *verdicts), tag("dl", *layers), class_="pair words"),
        id="reading",
    )


def _as_written(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


# --- small parts ------------------------------------------------------------------------------------------------------


def _none(text: str = "None.") -> Html:
    return tag("p", text, class_="none")


def table(names: Sequence[str], rows: Sequence[Sequence[Inner]], caption: str = "") -> Html:
    """The first column heads its row; an unnamed column holds bars. Numbers are set apart by their look."""
    styles = [_style(cell) for cell in rows[0]] if rows else [None] * len(names)
    head = tag("tr", *(tag("th", name, scope="col", class_=style) if name else tag("td", class_="bars")
                       for name, style in zip(names, styles, strict=True)))  # fmt: skip
    body = []
    for row in rows:
        first, *rest = row
        cells = [tag("td", cell, class_=_style(cell)) for cell in rest]
        body.append(tag("tr", tag("th", first, scope="row", class_=_style(first)), *cells))
    return tag("table", tag("caption", caption) if caption else None, tag("thead", head), tag("tbody", *body))


def _style(cell: Inner) -> str | None:
    if isinstance(cell, Html):
        return "bars" if cell.startswith("<svg") else None
    text = str(cell)
    return "num" if text and text[0].isdigit() and all(char in "0123456789,. %" for char in text) else None
