"""The probes behind the preflight checks: what each one reads, and how its answer is judged."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import orjson

from seiops.seid.bulk import Want
from seiops.seid.comet import CometError
from seiops.seid.evm import Call, EvmError
from seiops.shadow import direction
from seiops.shadow.preflight_facts import engines, family, heights, value, versions
from seiops.shadow.receipts import ShapeError, parse_block
from seiops.shadow.sides import Side
from seiops.shadow.touched import TraceError, parse_count, parse_trace
from seiops.shadow.traps import Check, MigrationFacts, Probe, Scene, State

_ARCHIVE_MARGIN = 1000
_ZERO_ADDRESS = "0x" + "00" * 20


def _judge(name: str, traps: str, good: bool, finding: str, advice: str) -> Check:
    return Check(name, traps, "held" if good else "failed", finding, advice)


def _unchecked(name: str, traps: str, why: str, configured: bool = False) -> Check:
    return Check(name, traps, "not checked", why, "give the probe what it needs, or check by hand", configured)


async def two_nodes_of_one_chain(scene: Scene) -> list[Check]:
    both = scene.both("status")
    if both is None:
        why = scene.why("status")
        return [_unchecked("distinct-nodes", "T8", why), _unchecked("same-chain", "T1", why)]
    nodes = [status.get("node_info") or {} for status in both]
    ids, chains = [node.get("id") for node in nodes], [node.get("network") for node in nodes]
    wanted = scene.plan.chain_id
    same = chains[0] == chains[1] and (not wanted or chains[0] == wanted)
    return [
        _judge("distinct-nodes", "T8", ids[0] != ids[1], f"node ids {ids[0]} and {ids[1]}",
               "name two different nodes: a node compared with itself always matches"),
        _judge("same-chain", "T1", same, f"networks {chains[0]} and {chains[1]}" + (f", expected {wanted}" if wanted else ""),
               "compare two nodes of the chain this sidecar runs"),
    ]  # fmt: skip


async def who_is_ahead(scene: Scene) -> list[Check]:
    both = scene.both("status")
    if both is None:
        return [_unchecked(name, traps, scene.why("status")) for name, traps in
                (("right-direction", "T7"), ("retained-history", "T9"), ("same-base", "T1"), ("keeps-up", "T25 T26"))]  # fmt: skip
    (ours, our_base, our_peers), (theirs, their_base, _) = (heights(status) for status in both)
    end = scene.plan.request.end_height
    ahead = direction.canonical_is_ahead(ours, theirs, end)
    start = scene.plan.start
    done = bool(end) and ours >= end
    frozen = not done and not (both[0].get("sync_info") or {}).get("catching_up") and our_peers > ours + direction.AHEAD
    return [
        _judge(direction.CHECK, "T7", ahead, f"shadow at {ours}, canonical at {theirs}", direction.ADVICE),
        _judge("retained-history", "T9", our_base <= start and their_base <= start,
               f"shadow keeps from {our_base}, canonical from {their_base}, the run starts at {start}",
               "set pruning to nothing and min_retain_blocks to 0 on both nodes, or start higher"),
        _judge("same-base", "T1", our_base == their_base, f"shadow keeps from {our_base}, canonical from {their_base}",
               "restore both nodes from the same snapshot"),
        _judge("keeps-up", "T25 T26", not frozen, f"shadow at {ours}, its peers at {our_peers}",
               "a node with freeze-height says catching_up:false far behind its peers; with one peer it never says so"),
    ]  # fmt: skip


async def same_software(scene: Scene) -> list[Check]:
    checks = []
    statuses, infos = scene.both("status"), scene.both("abci")
    if statuses is None and infos is None:
        checks.append(_unchecked("same-software", "T1", scene.why("abci")))
    else:
        told = [versions(scene, side) for side in ("shadow", "canonical")]
        checks.append(_judge("same-software", "T1", told[0] == told[1], f"versions {told[0]} and {told[1]}",
                             "run the same image on both nodes: what differs between releases is no finding"))  # fmt: skip
    if statuses is None:
        checks.append(_unchecked("not-an-archive", "T1", scene.why("status")))
    else:
        _, base, _ = heights(statuses[1])
        archive = base == 1 and scene.plan.start > _ARCHIVE_MARGIN
        checks.append(_judge("not-an-archive", "T1", not archive, f"canonical keeps from {base}, the run starts at {scene.plan.start}",
                             "compare two replay nodes of one image; an archive serves results of the binary of the day"))  # fmt: skip
    return checks


async def two_engines(scene: Scene) -> list[Check]:
    """An override that seid ignores gives two equal nodes and a perfect, empty parity."""
    request = scene.plan.request
    configured = bool(request.shadow_metrics or request.canonical_metrics)
    both = scene.both("metrics")
    if both is None:
        why = scene.why("metrics")
        return [
            _unchecked("two-engines", "T23 T24", why, configured),
            _unchecked("clean-baseline", "T2", why, configured),
        ]
    seen = [engines(metrics) for metrics in both]
    shown = " and ".join("+".join(sorted(engine)) or "none" for engine in seen)
    skipped = [value(metrics, "sei_chain_sei_unsafe_validation_skipped_total") for metrics in both]
    plain = [not family(metrics, "sei_chain_seidb_migration_") for metrics in both]
    baseline = any(engine == {"memiavl"} and clean for engine, clean in zip(seen, plain, strict=True))
    return [
        _judge("two-engines", "T23 T24", seen[0] != seen[1],
               f"engines {shown}; app-hash mismatches swallowed {skipped[0]:g} and {skipped[1]:g}",
               "write sc-write-mode-enable-auto = false next to sc-write-mode in app.toml: without it the mode is ignored"),
        _judge("clean-baseline", "T2", baseline, f"engines {shown}",
               "one node has to run memIAVL only and show no sei_chain_seidb_migration_* series"),
    ]  # fmt: skip


async def migration_complete(scene: Scene) -> list[Check]:
    """From the metric while it is there, from the store where a directory is given: the metric goes at the next restart."""
    name, traps = "migration-complete", "T2 T3 T4 T19"
    advice = "wait until every key has moved, or start from a store that was FlatKV from the beginning"
    plan = scene.plan
    if plan.request.flatkv_dir and plan.migration is not None:
        try:
            facts = await plan.migration(plan.request.flatkv_dir)
        except (OSError, ValueError) as error:
            return [_unchecked(name, traps, f"{plan.request.flatkv_dir}: {error}", configured=True)]
        said, state = _migration_said(facts)
        return [Check(name, traps, state, f"the store at {facts.height} says: {said}", advice)]
    found = [scene.facts[key] for key in ("shadow metrics", "canonical metrics") if key in scene.facts]
    told = [value(metrics, "sei_chain_seidb_migration_version") for metrics in found
                if family(metrics, "sei_chain_seidb_migration_version")]  # fmt: skip
    if told:
        return [_judge(name, traps, min(told) >= 1, f"migration version {min(told):g}", advice)]
    why = "no sei_chain_seidb_migration_version (it disappears at the restart after the migration); give flatkvDir"
    configured = bool(plan.request.shadow_metrics or plan.request.canonical_metrics)
    mixed = any(engines(metrics) == {"memiavl", "flatkv"} for metrics in found)
    return [_unchecked(name, traps, why, configured and mixed)]


def _migration_said(facts: MigrationFacts) -> tuple[str, State]:
    if facts.complete:
        return "complete", "held"
    if facts.started:
        return "in progress", "failed"
    if facts.empty:
        return "no EVM row at all: every read is still answered by memIAVL", "failed"
    return "no migration was ever started: FlatKV from the beginning, or imported", "note"


async def commits_its_own(scene: Scene) -> list[Check]:
    """Whether each node's own app hash is the network's: two engines cannot both commit what the network commits.

    `/abci_info` tells the hash a node computed itself, and only at its tip; the header of the next block tells the network's.
    """
    name, traps = "own-app-hashes", "T23 T24"
    sides = (scene.comparator.shadow, scene.comparator.canonical)
    told = await asyncio.gather(*(_commits_as_the_network(scene, side, sides) for side in sides))
    if any(isinstance(one, str) for one in told):
        why = "; ".join(f"{side.name}: {one}" for side, one in zip(sides, told, strict=True) if isinstance(one, str))
        return [Check(name, traps, "not checked", why, "ask again while both nodes make progress")]
    finding = ", ".join(
        f"{side.name} computes {'the same as' if one else 'other than'} the network"
        for side, one in zip(sides, told, strict=True)
    )
    return [_judge(name, traps, not all(told), finding,
                   "both nodes commit like the network: they run one engine; see sc-write-mode-enable-auto in app.toml")]  # fmt: skip


async def _commits_as_the_network(scene: Scene, side: Side, sides: tuple[Side, Side]) -> bool | str:
    """A text where it cannot be told: no own hash, or no node has the next block yet."""
    info = scene.facts.get(f"{side.name} abci")
    height, own = str((info or {}).get("last_block_height") or ""), (info or {}).get("last_block_app_hash")
    if not height.isdigit() or not isinstance(own, str):
        return scene.missing.get(f"{side.name} abci") or "/abci_info tells no app hash"
    try:
        computed = base64.b64decode(own, validate=True)
    except ValueError:
        return f"/abci_info: last_block_app_hash is {own[:80]!r}"
    following = int(height) + 1
    for asked in sides:
        (body,) = await asked.comet.read([Want("block", following)])
        try:
            if isinstance(body, bytes):
                return parse_block(body, following).app_hash.lower() == computed.hex()
        except ShapeError:
            continue
    return f"neither node has block {following} yet"


async def traces_work(scene: Scene) -> list[Check]:
    name, traps = "traces-work", "T9 T10 T13"
    tracers = [tracer for tracer in scene.comparator.tracers if not tracer.missing]
    if not tracers:
        return [_unchecked(name, traps, "no EVM endpoints are given: state is not compared")]
    checks = []
    for tracer in tracers:
        for height in _probe_heights(scene):
            problem = await _trace_problem(tracer.evm.batch([
                Call("debug_traceBlockByNumber", [hex(height), {"tracer": "prestateTracer", "tracerConfig": {"diffMode": True}}]),
                Call("eth_getBlockTransactionCountByNumber", [hex(height)]),
            ]))  # fmt: skip
            if tracer.optional and problem is not None and problem.startswith("the method"):
                break
            finding = f"{tracer.evm.url} at {height}: {problem or 'complete'}"
            checks.append(_judge(name, traps, problem is None, finding,
                                 "set evm.max_trace_lookback_blocks to -1, keep receipts, and allow concurrent traces"))  # fmt: skip
    return checks


async def _trace_problem(asked: Any) -> str | None:
    trace, count = await asked
    if isinstance(trace, EvmError):
        return f"the method is missing: {trace}" if trace.method_missing else str(trace)
    try:
        found = parse_trace(trace)
        if not isinstance(count, EvmError):
            found.miss((), parse_count(count))
    except TraceError as error:
        return str(error)
    return found.problems[0] if found.problems else None


def _probe_heights(scene: Scene) -> list[int]:
    """Just above the start (the first block of a restored node has no parent to trace from), and near the end."""
    status = scene.facts.get("shadow status")
    latest = heights(status)[0] if status else 0
    end = min(latest, scene.plan.request.end_height or latest)
    low = scene.plan.start + 1
    return [low, end] if end > low else [low]


async def state_is_readable(scene: Scene) -> list[Check]:
    sides = (scene.comparator.shadow, scene.comparator.canonical)
    if any(side.evm is None for side in sides):
        why = "no EVM endpoints are given: state is not compared"
        return [_unchecked("state-readable", "T4", why), _unchecked("layer2-meaning", "T5", why)]
    height = scene.plan.start + 1
    accounts = scene.plan.request.watch_accounts or (await _known_account(scene, height),)
    answers = await asyncio.gather(
        *(side.evm.batch([Call("eth_getBalance", [accounts[0], hex(height)])]) for side in sides if side.evm)
    )
    problems = [f"{side.name}: {answer[0]}" for side, answer in zip(sides, answers, strict=True)
                if isinstance(answer[0], EvmError)]  # fmt: skip
    readable = not problems
    note = Check("layer2-meaning", "T5", "note" if readable else "not checked",
                 "historical reads are answered by the state store: Layer 2 checks history, not the FlatKV read path"
                 if readable else "; ".join(problems),
                 "take Layer 1 and the digest as the proof; Layer 2 only says that both histories agree")  # fmt: skip
    return [_judge("state-readable", "T4", readable, "; ".join(problems) or f"balance of {accounts[0]} at {height} is readable",
                   "keep history on both nodes; write_mode evm_migrated needs a store whose migration is complete"), note]  # fmt: skip


async def _known_account(scene: Scene, height: int) -> str:
    """An account that exists for certain: one the block touched, else its fee recipient."""
    evm = scene.comparator.shadow.evm
    assert evm is not None
    tracers = scene.comparator.tracers
    options = {"tracer": "prestateTracer", "tracerConfig": {"diffMode": True}}
    try:
        if tracers:
            touched = parse_trace(await tracers[0].evm.call("debug_traceBlockByNumber", [hex(height), options]))
            if touched.accounts:
                return "0x" + touched.ordered()[0][0].hex()
        block = orjson.loads(await evm.call("eth_getBlockByNumber", [hex(height), False]))
    except (EvmError, TraceError, orjson.JSONDecodeError):
        return _ZERO_ADDRESS
    miner = block.get("miner") if isinstance(block, dict) else None
    return miner if isinstance(miner, str) else _ZERO_ADDRESS


async def receipts_look_alike(scene: Scene) -> list[Check]:
    """Settings that leak into receipts: the executor, event indexing, the decoder of old transactions."""
    both = scene.both("sample")
    names = (("executors", "T27"), ("event-settings", "T12"), ("lenient-decoder", "T6"))
    if both is None:
        return [_unchecked(name, traps, scene.why("sample")) for name, traps in names]
    common = sorted(set(both[0]) & set(both[1]))
    shapes, flags, decoder = [], [], []
    for height in common:
        ours, theirs = both[0][height], both[1][height]
        if [_shape(one) for one in ours] != [_shape(one) for one in theirs]:
            shapes.append(height)
        if _flags(ours) != _flags(theirs):
            flags.append(height)
        if _undecodable(ours) != _undecodable(theirs):
            decoder.append(height)
    looked = f"blocks {common[0]} to {common[-1]}" if common else "no common block"
    return [
        _judge("executors", "T27", not shapes, _places(looked, shapes, "receipts of two shapes"),
               "set giga_executor.enabled alike on both nodes; otherwise log, events and evm_tx_info differ in every block"),
        _judge("event-settings", "T12", not flags, _places(looked, flags, "index flags that differ"),
               "set index-events alike on both nodes"),
        _judge("lenient-decoder", "T6", not decoder, _places(looked, decoder, "transactions only one side can decode"),
               "build seid with the tags mock_chain_validation and historical_replay, never with mock_balances"),
    ]  # fmt: skip


def _places(looked: str, heights: Sequence[int], what: str) -> str:
    return f"{looked}: {what} at {', '.join(map(str, heights[:5]))}" if heights else f"{looked}: alike"


def _shape(receipt: dict[str, Any]) -> tuple[bool, bool]:
    """Whether an EVM receipt carries events, and the sender in its EVM part; plain receipts have one shape."""
    info = receipt.get("evm_tx_info")
    if not isinstance(info, dict):
        return (True, True)
    return (bool(receipt.get("events")), "senderAddress" in info)


def _flags(receipts: Sequence[dict[str, Any]]) -> list[Any]:
    for receipt in receipts:
        for event in receipt.get("events") or []:
            attributes = event.get("attributes") if isinstance(event, dict) else None
            if attributes:
                return [attribute.get("index") for attribute in attributes if isinstance(attribute, dict)]
    return []


def _undecodable(receipts: Sequence[dict[str, Any]]) -> int:
    return sum(1 for one in receipts if one.get("code") == 2 and "tx parse error" in str(one.get("log")))


async def the_run_itself(scene: Scene) -> list[Check]:
    """Traps of how the run is set up, and those that this build makes impossible."""
    plan, request = scene.plan, scene.plan.request
    checks = [
        _judge(
            "fresh-progress", "T15", not plan.warning, plan.warning or "progress is this run's own", "give startHeight"
        ),
        Check("params-understood", "T16 T17", "held", "comparison params are refused where they are half set"),
        Check("verdicts-not-status", "T18 T20", "note", "a completed task is no match: read verdict, counts and pages"),
        Check("restart-safe", "T22", "held", "a stopped survey publishes its trailing page and goes on after it"),
        _unchecked("snapshot-trust", "T21", "the trust period of a state sync is not visible over RPC"),
    ]
    taken = await plan.prefix_taken() if plan.prefix_taken is not None else None
    if taken is None:
        checks.append(_unchecked("fresh-prefix", "T14", "the prefix cannot be listed"))
    else:
        finding = "other objects are under the prefix" if taken else "empty, or this run's own"
        checks.append(_judge("fresh-prefix", "T14", not taken, finding, "give every run and shard a prefix of its own"))
    checks.append(await _header_source(scene, request.migration))
    return checks


async def _header_source(scene: Scene, migration: bool) -> Check:
    name, traps, height = "headers-mean-something", "T8 T11", scene.plan.start
    sides = (scene.comparator.shadow, scene.comparator.canonical)
    answers = await asyncio.gather(*(side.comet.read([Want("block", height)]) for side in sides))
    blocks = []
    for answer in answers:
        try:
            if isinstance(answer[0], CometError):
                raise answer[0]
            blocks.append(parse_block(answer[0], height))
        except (CometError, ShapeError) as error:
            return _unchecked(name, traps, str(error))
    same = bool(blocks[0].block_id) and blocks[0].block_id == blocks[1].block_id
    finding = f"both nodes serve {'the same' if same else 'different'} block {height}"
    return _judge(name, traps, migration or not same, finding,
                  "set migrationMode: equal headers come from the network and say nothing about execution")  # fmt: skip


PROBES: tuple[Probe, ...] = (
    two_nodes_of_one_chain,
    who_is_ahead,
    same_software,
    two_engines,
    commits_its_own,
    migration_complete,
    traces_work,
    state_is_readable,
    receipts_look_alike,
    the_run_itself,
)
