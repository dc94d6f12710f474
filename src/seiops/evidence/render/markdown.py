"""Reports as Markdown, for a ticket or a pull request.

The report of one block keeps the headings, table heads and bold labels that readers of the Go program's output know
(docs/contracts/shadow.md 7.4); nothing in a cell can end it, and no two values that differ are shortened to look alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from seiops.evidence.advice import advice, headline, number
from seiops.evidence.advice import blocks as blocks_of
from seiops.evidence.blocks import LAYER_NAMES, LAYERS, Difference
from seiops.evidence.oneblock import BlockView
from seiops.evidence.render.charts import percent
from seiops.evidence.render.text import printable
from seiops.evidence.summary import Block, RunInfo, Summary, cut

CELL = 80
TOP = 20
LISTED = 100
DASH = "—"


def cell(value: object) -> str:
    """Text that stays in its cell and is shown as it is."""
    text = printable(value).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return " ".join(text.split()) or DASH


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(names) + " |"
    yield "|" + "|".join("---" for _ in names) + "|"
    for row in rows:
        yield "| " + " | ".join(cell(value) for value in row) + " |"


def short_hash(text: str) -> str:
    """Up to 16 characters as they are, else the first eight and the last four."""
    return text if len(text) <= 16 else f"{text[:8]}...{text[-4:]}"


def pair(shadow: str, canonical: str, limit: int = CELL) -> tuple[str, str]:
    """Both values cut to a cell; where the cut would hide the difference, the part in which they differ is shown."""
    if len(shadow) <= limit and len(canonical) <= limit:
        return shadow, canonical
    shown = tuple(text if len(text) <= limit else text[: limit - 3] + "..." for text in (shadow, canonical))
    if shown[0] != shown[1]:
        return shown[0], shown[1]
    at = next(
        (i for i, (ours, theirs) in enumerate(zip(shadow, canonical, strict=False)) if ours != theirs),
        min(len(shadow), len(canonical)),
    )
    start = max(at - 20, 0)
    ours, theirs = (f"...{text[start : start + limit - 6]}..." for text in (shadow, canonical))
    return ours, theirs


# --- a run ------------------------------------------------------------------------------------------------------------


def summary(found: Summary) -> str:
    return "\n".join(_summary(found)) + "\n"


def _summary(found: Summary) -> Iterator[str]:
    yield f"# {found.verdict.capitalize()}: {cell(found.place)}"
    yield ""
    yield f"**{cell(headline(found))}.**"
    yield ""
    total = found.blocks + found.missing
    facts: list[tuple[object, object]] = [("Blocks compared", number(found.blocks))]
    if found.blocks:
        facts.insert(0, ("Heights", f"{number(found.ledger.first)} to {number(found.ledger.last)}"))
    facts += [(name.capitalize(), f"{number(count)} ({percent(count, total)})") for name, count in found.counts.items()]
    facts += [("Missing", number(found.missing)), ("Pages", f"{number(found.pages)}, {number(found.seals_held)} held their seal"),
              ("Transactions, state keys", f"{number(found.txs)}, {number(found.keys)}")]  # fmt: skip
    yield from table(("", ""), facts)
    for weight, heading in (("act", "What to do next"), ("know", "What to know")):
        told = [one for one in advice(found) if one.weight == weight]
        if told:
            yield from ("", f"## {heading}", "")
            for one in told:
                yield f"- {cell(one.text)}" + (f" `{one.command}`" if one.command else "")
    yield from _tallies(found)
    spans, in_all = found.open_spans()
    if spans:
        yield from ("", f"## Gaps and open ends ({number(in_all)})", "")
        rows = [(span.verdict, span.start, span.end, span.blocks) for span in spans[:LISTED]]
        yield from table(("What", "From", "To", "Blocks"), rows)
    listed = found.listed()
    if listed:
        yield from ("", f"## Blocks that are not clean ({number(found.not_clean)})", "")
        yield from _blocks(listed[:LISTED])
        if found.not_clean > LISTED:
            yield from ("", f"{number(found.not_clean - LISTED)} more are not shown.")
    yield from ("", "## Runs", "")
    yield from runs(found.runs)
    if found.problems:
        yield from ("", f"## Problems with the published objects ({number(found.problem_count)})", "")
        yield from (f"- {cell(problem)}" for problem in found.problems)


def _tallies(found: Summary) -> Iterator[str]:
    if any(found.layers.values()) or any(found.undecided.values()):
        yield from ("", "## Divergences by layer", "")
        rows = [(f"{LAYER_NAMES[layer]} ({layer})", found.layers[layer], found.undecided[layer]) for layer in LAYERS]
        yield from table(("Layer", "Diverged", "Undecided"), rows)
    for heading, tally in (("kind", found.kinds), ("contract", found.contracts)):
        if tally.differences:
            yield from ("", f"## Divergences by {heading}", "")
            yield from table((heading.capitalize(), "Differences", "Blocks"), tally.top(TOP))
    if found.reasons:
        yield from ("", "## Undecided, by reason", "")
        reasons = sorted(found.reasons.items(), key=lambda item: -item[1].blocks)
        told = [(name, one.blocks, f"{one.height}: {cut(one.error)}") for name, one in reasons]
        yield from table(("Reason", "Blocks", "For example"), told)


def _blocks(blocks: Sequence[Block]) -> Iterator[str]:
    rows = [(one.height, one.verdict, ", ".join(one.layers), ", ".join(one.kinds) or one.reason or cut(one.error, CELL),
             ", ".join(one.contracts), one.differences) for one in blocks]  # fmt: skip
    yield from table(("Height", "Verdict", "Layers", "What", "Contracts", "Differences"), rows)


def blocks(found: Summary) -> str:
    """A list of blocks, as filters left it."""
    head = [f"# Blocks: {cell(found.place)}", "", f"Passing the filters: {blocks_of(found.blocks)}.", ""]
    return "\n".join([*head, *_blocks(found.listed())]) + "\n"


def runs(found: Sequence[RunInfo]) -> Iterator[str]:
    rows = [
        (one.folder or DASH, one.run or "no manifest", one.mode, one.chain or DASH, span(one),
         one.pages, counts(one), ": ".join(filter(None, (one.state, one.reason))), "sealed" if one.sealed else "no seals")
        for one in found
    ]  # fmt: skip
    yield from table(("Folder", "Run", "Mode", "Chain", "Heights", "Pages", "Verdicts", "State", "Evidence"), rows)


def span(run: RunInfo) -> str:
    return f"{run.first}-{run.last}" if run.first is not None else DASH


def counts(run: RunInfo) -> str:
    if run.counts is None:
        return f"{number(run.blocks)} blocks"
    return ", ".join(f"{number(count)} {name}" for name, count in run.counts.items() if count)


# --- a block ----------------------------------------------------------------------------------------------------------


def block(view: BlockView) -> str:
    return "\n".join(_block(view)) + "\n"


def verdict_line(view: BlockView) -> str:
    """Verdict, mode and deepest layer in one sentence."""
    line, finding = view.line, view.finding
    mode = "migration mode, in which the app hash is expected to differ" if line.migration_mode else "default mode"
    layer = f", deepest layer {line.divergence_layer}" if line.divergence_layer is not None else ""
    reason = f", reason {finding.reason}" if finding.reason else ""
    text = f"{finding.verdict} in {mode}{layer}{reason}"
    return f"{text}; contradiction in the record: {finding.contradiction}" if finding.contradiction else text


def _block(view: BlockView) -> Iterator[str]:
    line = view.line
    yield from (f"# Divergence Report — Height {view.height}", "", f"**Detected at:** {cell(view.timestamp)}", "")
    yield f"**Verdict:** {cell(verdict_line(view))}."
    for name, text in view.meanings():
        yield f"- {name}: {text}"
    yield from ("", "## Layer 0: Block Header Comparison", "")
    yield from table(("Field", "Shadow", "Canonical", "Match"), list(_headers(view)))
    if line.layer1 is not None:
        yield from ("", "## Layer 1: Transaction Receipt Comparison", "")
        yield from _receipts(view)
    if line.layer2 is not None:
        yield from ("", "## Layer 2: Logical State Comparison", "")
        yield from _state(view)
    if line.layer_h is not None:
        yield from ("", "## Hash log", "")
        yield from table(("Member", "Value"), list(line.layer_h.items()))
    if (before := view.previous) is not None:
        yield from ("", f"## The block before: {before[0]}", "", "Headers show the outcome of the block before.", "")
        rows = [(one.layer, one.kind, f"{one.place} {one.slot}", *pair(one.shadow, one.canonical)) for one in before[1]]
        yield from table(("Layer", "Kind", "Where", "Shadow", "Canonical"), rows)
    if view.report is not None and view.report.parted:
        yield from ("", "## Where the traces part", "")
        yield from table(("Transaction", "Path", "Shadow", "Canonical"),
                         [(one.place, one.kind, *pair(one.shadow, one.canonical)) for one in view.report.parted])  # fmt: skip
    yield from ("", "## Raw Data", "")
    if view.report is None:
        yield "No report object was published for this block; `--json` prints its comparison as it stands in the page."
        return
    yield f"The report holds both nodes' raw answers ({', '.join(view.report.answers) or 'none could be captured'}); `--json` prints them."
    yield from (f"- {cell(error)}" for error in view.report.capture_errors)


def _headers(view: BlockView) -> Iterator[tuple[str, str, str, str]]:
    found = view.line.layer0
    for name, match, ours, theirs in (
        ("AppHash", found.app_hash_match, found.shadow_app_hash, found.canonical_app_hash),
        (
            "LastResultsHash",
            found.last_results_hash_match,
            found.shadow_last_results_hash,
            found.canonical_last_results_hash,
        ),
    ):
        if match:
            yield name, DASH, DASH, "✅"
        else:
            yield name, *_short_pair(ours, theirs), "❌"
    if found.gas_used_match:
        # a match here is written also where gas was never looked at
        yield "GasUsed", DASH, DASH, "not compared"
    else:
        yield "GasUsed", str(found.shadow_gas_used), str(found.canonical_gas_used), "❌"


def _short_pair(ours: str, theirs: str) -> tuple[str, str]:
    short = short_hash(ours), short_hash(theirs)
    return short if short[0] != short[1] else (ours, theirs)


def _receipts(view: BlockView) -> Iterator[str]:
    layer = view.line.layer1
    assert layer is not None
    if layer.indeterminate:
        yield f"**Indeterminate**: {cell(layer.error)}"
        if not layer.divergences:
            return
        yield ""
    yield f"**Total transactions:** {layer.total_txs}"
    if not layer.tx_count_match:
        yield "**Transaction count mismatch**: the nodes hold different numbers of results."
    yield f"**Divergent transactions:** {len(layer.divergences)}"
    by_tx: dict[str, list[Difference]] = {}
    for one in view.finding.differences:
        if one.layer == "1":
            by_tx.setdefault(one.place, []).append(one)
    for place, found in by_tx.items():
        yield from ("", f"### Transaction {place.removeprefix('tx ')}", "")
        yield from table(
            ("Field", "Shadow", "Canonical"), [(one.kind, *pair(one.shadow, one.canonical)) for one in found]
        )


def _state(view: BlockView) -> Iterator[str]:
    layer = view.line.layer2
    assert layer is not None
    if layer.indeterminate:
        yield f"**Indeterminate**: {cell(layer.error)}"
        if not layer.divergences:
            return
        yield ""
    yield f"**Accounts checked:** {layer.accounts_checked} &nbsp;&nbsp; **Keys checked:** {layer.keys_checked}"
    yield f"**Divergent keys:** {len(layer.divergences)}"
    if layer.divergences:
        yield ""
        rows = [(one.kind, one.addr, one.slot or DASH, one.shadow, one.canonical) for one in layer.divergences]
        yield from table(("Kind", "Address", "Slot", "Shadow", "Canonical"), rows)
