"""Are these RPC endpoints fit to be light-client witnesses of a chain?

Asked by whoever curates a syncer list, before nodes rely on it: a node that state-syncs believes what its witnesses
agree on, and seid exits when one of them is dead or of another chain (docs/contracts/sidecar.md 5.12). Every question
has a deadline, all endpoints are asked at once, and each answer is judged alone first, then against the others.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import aiohttp

from seiops.seid.comet import CometClient, CometError, parse_height, parse_status

TLS_PORT = 443
TRUST_DISTANCE = 2000
"""Blocks between the head and the height a node pins, as the sidecar does it."""
MINIMUM = 2
"""Witnesses without which no node of the chain is started."""
_HASH = re.compile(r"[0-9A-Fa-f]{64}")
_AT_ONCE = 64


class Problem(StrEnum):
    MALFORMED = "Malformed"
    UNREACHABLE = "Unreachable"
    TLS = "TLS"
    WRONG_CHAIN = "WrongChain"
    CATCHING_UP = "CatchingUp"
    LAGGING = "Lagging"
    STALE = "Stale"
    PRUNED = "Pruned"
    NO_LIGHT_BLOCK = "NoLightBlock"
    HASH_DISAGREES = "HashDisagrees"
    SAME_NODE = "SameNode"
    TOO_FEW = "TooFew"


@dataclass(frozen=True, slots=True)
class Finding:
    problem: Problem
    detail: str


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds and blocks. ``longest_age`` of the newest block and ``certificate_days`` 0: not looked at."""

    deadline: float = 10.0
    most_behind: int = 100
    longest_age: float = 600.0
    certificate_days: int = 14
    trust_distance: int = TRUST_DISTANCE
    tls_port: int = TLS_PORT


@dataclass(slots=True)
class Endpoint:
    """What one endpoint answered. Values are None where no answer gave them."""

    address: str
    url: str
    tls: bool
    milliseconds: int | None = None
    network: str | None = None
    node_id: str | None = None
    height: int | None = None
    behind: int | None = None
    earliest: int | None = None
    catching_up: bool | None = None
    newest_block: datetime | None = None
    certificate_ends: datetime | None = None
    trust_hash: str | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return not self.findings

    def note(self, problem: Problem, detail: str) -> None:
        self.findings.append(Finding(problem, detail))


@dataclass(slots=True)
class Chain:
    """One chain's list. ``trust_height`` is None if nobody of the chain answered."""

    chain_id: str
    endpoints: list[Endpoint]
    trust_height: int | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        return not self.findings and all(endpoint.usable for endpoint in self.endpoints)

    @property
    def answered(self) -> bool:
        return any(endpoint.network is not None for endpoint in self.endpoints)


async def check_chain(
    chain_id: str,
    addresses: Sequence[str],
    rules: Rules,
    trust: ssl.SSLContext,
    tell: Callable[[], None] = lambda: None,
) -> Chain:
    """Asks all addresses (`host:port`, each once) and judges them. ``tell`` is called when an endpoint has answered.

    ``trust`` decides which certificates are believed.
    """
    chain = Chain(chain_id, [_endpoint(address, rules) for address in dict.fromkeys(addresses)])
    connector = aiohttp.TCPConnector(ssl=trust, limit=_AT_ONCE, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(_ask(endpoint, rules, session, trust, tell) for endpoint in chain.endpoints))
        _judge_statuses(chain, rules)
        await asyncio.gather(*(_ask_light_block(endpoint, chain, rules, session) for endpoint in _of_chain(chain)))
    _judge_hashes(chain)
    _judge_identities(chain)
    usable = sum(endpoint.usable for endpoint in chain.endpoints)
    if usable < MINIMUM:
        detail = f"{usable} usable of {len(chain.endpoints)}, {MINIMUM} are needed before a node of the chain starts"
        chain.findings.append(Finding(Problem.TOO_FEW, detail))
    return chain


def _endpoint(address: str, rules: Rules) -> Endpoint:
    """TLS exactly when the port is 443: the sidecar goes by the port and by nothing else."""
    tls = address.rpartition(":")[2] == str(rules.tls_port)
    return Endpoint(address, f"{'https' if tls else 'http'}://{address}", tls)


async def _ask(
    endpoint: Endpoint, rules: Rules, session: aiohttp.ClientSession, trust: ssl.SSLContext, tell: Callable[[], None]
) -> None:
    client = CometClient(endpoint.url, session, timeout_s=rules.deadline)
    begun = time.monotonic()
    try:
        answer = await client.get("/status")
        endpoint.milliseconds = round((time.monotonic() - begun) * 1000)
        _take_status(endpoint, answer)
    except CometError as error:
        await _explain_silence(endpoint, error, rules)
    else:
        if endpoint.tls:
            await _read_certificate(endpoint, rules, trust)
    tell()


def _take_status(endpoint: Endpoint, answer: Any) -> None:
    """Raises CometError on anything that is no status."""
    status = parse_status(answer)
    endpoint.network, endpoint.node_id = status.network, status.node_id
    endpoint.height, endpoint.catching_up = status.height, status.catching_up
    sync = answer["sync_info"] if isinstance(answer.get("sync_info"), dict) else {}
    earliest = sync.get("earliest_block_height")
    endpoint.earliest = parse_height(earliest, "earliest_block_height") if isinstance(earliest, str) else None
    endpoint.newest_block = _moment(sync.get("latest_block_time"))


def _moment(text: Any) -> datetime | None:
    """RFC 3339 with up to nanoseconds."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z", text) if isinstance(text, str) else None
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC) if found else None


async def _explain_silence(endpoint: Endpoint, error: CometError, rules: Rules) -> None:
    if isinstance(error.__cause__, aiohttp.ClientSSLError | ssl.SSLError):
        endpoint.note(Problem.TLS, f"{endpoint.url}: {error.__cause__}")
    elif not endpoint.tls and await _speaks_tls(endpoint.address, rules):
        detail = f"speaks TLS, but nodes use TLS on port {rules.tls_port} only: move it there or serve plain HTTP here"
        endpoint.note(Problem.TLS, detail)
    else:
        endpoint.note(Problem.UNREACHABLE, str(error))


async def _speaks_tls(address: str, rules: Rules) -> bool:
    blind = ssl.create_default_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    try:
        writer = await _connect(address, rules, blind)
    except (OSError, TimeoutError, ValueError):
        return False
    writer.close()
    return True


async def _read_certificate(endpoint: Endpoint, rules: Rules, trust: ssl.SSLContext) -> None:
    try:
        writer = await _connect(endpoint.address, rules, trust)
    except (OSError, TimeoutError, ValueError) as error:
        endpoint.note(Problem.TLS, f"second connection: {error or type(error).__name__}")
        return
    ends = (writer.get_extra_info("peercert") or {}).get("notAfter")
    writer.close()
    if not ends:
        return
    endpoint.certificate_ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC)
    days = (endpoint.certificate_ends - datetime.now(UTC)).days
    if days < rules.certificate_days:
        endpoint.note(Problem.TLS, f"the certificate ends in {days} days, on {endpoint.certificate_ends:%Y-%m-%d}")


async def _connect(address: str, rules: Rules, context: ssl.SSLContext) -> asyncio.StreamWriter:
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(rules.deadline):
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
    return writer


def _of_chain(chain: Chain) -> Iterator[Endpoint]:
    return (endpoint for endpoint in chain.endpoints if endpoint.network == chain.chain_id)


def _judge_statuses(chain: Chain, rules: Rules) -> None:
    for endpoint in chain.endpoints:
        if endpoint.network is not None and endpoint.network != chain.chain_id:
            endpoint.note(Problem.WRONG_CHAIN, f"answers for {endpoint.network or 'no network'}, not {chain.chain_id}")
    heights = [endpoint.height for endpoint in _of_chain(chain) if endpoint.height is not None]
    if not heights:
        return
    head = max(heights)
    chain.trust_height = max(1, head - rules.trust_distance)
    for endpoint in _of_chain(chain):
        for finding in _status_findings(endpoint, head, chain.trust_height, rules):
            endpoint.findings.append(finding)


def _status_findings(endpoint: Endpoint, head: int, trust_height: int, rules: Rules) -> Iterator[Finding]:
    assert endpoint.height is not None
    endpoint.behind = head - endpoint.height
    if endpoint.catching_up:
        yield Finding(Problem.CATCHING_UP, f"is catching up, at {endpoint.height:,}")
    if endpoint.behind > rules.most_behind:
        yield Finding(Problem.LAGGING, f"{endpoint.behind:,} blocks behind the others ({head:,})")
    if endpoint.newest_block is not None and rules.longest_age > 0:
        age = (datetime.now(UTC) - endpoint.newest_block).total_seconds()
        if age > rules.longest_age:
            yield Finding(Problem.STALE, f"its newest block is {age / 60:,.0f} minutes old")
    if endpoint.earliest is not None and endpoint.earliest > trust_height:
        yield Finding(Problem.PRUNED, f"begins at {endpoint.earliest:,}, above the trust height {trust_height:,}")


async def _ask_light_block(endpoint: Endpoint, chain: Chain, rules: Rules, session: aiohttp.ClientSession) -> None:
    """The three answers a light client needs at the trust height: block id, commit, validators."""
    if chain.trust_height is None or any(found.problem is Problem.PRUNED for found in endpoint.findings):
        return
    client = CometClient(endpoint.url, session, timeout_s=rules.deadline)
    try:
        block, commit, validators = await asyncio.gather(
            *(client.result(f"/{route}?height={chain.trust_height}") for route in ("block", "commit", "validators"))
        )
        endpoint.trust_hash = _light_block_hash(block, commit, validators, chain)
    except CometError as error:
        endpoint.note(Problem.NO_LIGHT_BLOCK, f"at {chain.trust_height:,}: {error}")


def _light_block_hash(block: Any, commit: Any, validators: Any, chain: Chain) -> str:
    """Raises CometError where the three do not make one light block of this chain at this height."""
    height = str(chain.trust_height)
    found = _member(block, "block_id", "hash")
    if not isinstance(found, str) or not _HASH.fullmatch(found):
        raise CometError(f"/block: block_id.hash is {found!r}, expected 64 hex digits")
    header = _member(commit, "signed_header", "header")
    if _member(header, "height") != height or _member(header, "chain_id") != chain.chain_id:
        told = f"{_member(header, 'chain_id')} at {_member(header, 'height')}"
        raise CometError(f"/commit: its header is of {told}")
    signed = _member(commit, "signed_header", "commit", "block_id", "hash")
    if signed != found:
        raise CometError(f"/commit signs {signed}, /block has {found}")
    if not _member(validators, "validators"):
        raise CometError("/validators: the set is empty")
    if _member(validators, "block_height") != height:
        raise CometError(f"/validators: answers for height {_member(validators, 'block_height')}")
    return found.upper()


def _member(document: Any, *names: str) -> Any:
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _judge_hashes(chain: Chain) -> None:
    """A hash most agree on is the chain's; without a majority nobody is believed."""
    hashes = Counter(endpoint.trust_hash for endpoint in chain.endpoints if endpoint.trust_hash is not None)
    if len(hashes) < 2:
        return
    (common, count), *_ = hashes.most_common(1)
    majority = count > hashes.total() / 2
    for endpoint in chain.endpoints:
        told = endpoint.trust_hash
        if told is None or (majority and told == common):
            continue
        against = f"{count} of {hashes.total()} have {common}" if majority else "there is no majority for any"
        endpoint.note(Problem.HASH_DISAGREES, f"block {chain.trust_height:,} is {told} here, {against}")


def _judge_identities(chain: Chain) -> None:
    """One node under two names is one witness."""
    known: dict[str, str] = {}
    for endpoint in _of_chain(chain):
        if not endpoint.node_id:
            continue
        other = known.setdefault(endpoint.node_id, endpoint.address)
        if other != endpoint.address:
            endpoint.note(Problem.SAME_NODE, f"is the same node as {other} ({endpoint.node_id})")
