"""Witnesses are judged by what they answer on real sockets: each alone, then against the others."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from seidev.chain import Recording, Replay, Window
from seiops.seid.witnesses import Chain, Problem, Rules, check_chain
from support.chains import CHAIN, HEAD, TRUST, Forked, NoValidators, Renamed, block_hash, node, recordings, serving

# The recordings are older than any sensible age.
RULES = Rules(deadline=2.0, longest_age=0)


@pytest.fixture(scope="module")
def pair() -> tuple[Recording, Recording]:
    return recordings()


async def check(addresses: list[str], rules: Rules = RULES, trust: ssl.SSLContext | None = None) -> Chain:
    return await check_chain(CHAIN, addresses, rules, trust or ssl.create_default_context())


def problems(chain: Chain) -> list[list[str]]:
    return [[finding.problem.value for finding in endpoint.findings] for endpoint in chain.endpoints]


async def test_two_good_witnesses_are_fine(pair: tuple[Recording, Recording]) -> None:
    async with serving(node(pair[0]), node(pair[1], head=HEAD - 3)) as addresses:
        found = await check(addresses)
    assert found.fine, problems(found)
    assert found.trust_height == TRUST
    assert [endpoint.trust_hash for endpoint in found.endpoints] == [block_hash(pair[0], TRUST)] * 2
    assert [endpoint.behind for endpoint in found.endpoints] == [0, 3]
    assert [endpoint.earliest for endpoint in found.endpoints] == [421, 421]


async def test_each_fault_is_named_at_its_endpoint(pair: tuple[Recording, Recording]) -> None:
    first, second = pair
    nodes = [
        node(first),
        node(second),
        Renamed(first, Window(421, HEAD)),
        node(second, catching_up=True),
        node(first, base=TRUST + 1),
        NoValidators(second, Window(421, HEAD)),
        Forked(first, Window(421, HEAD)),
        node(second, head=HEAD - 500),
    ]
    async with serving(*nodes) as addresses:
        found = await check([*addresses, "127.0.0.1:1"])
    same = [[problem for problem in endpoint if problem != "SameNode"] for endpoint in problems(found)]
    assert same == [
        [],
        [],
        ["WrongChain"],
        ["CatchingUp"],
        ["Pruned"],
        ["NoLightBlock"],
        ["HashDisagrees"],
        ["Lagging"],
        ["Unreachable"],
    ]
    assert "500 blocks behind" in found.endpoints[7].findings[0].detail
    assert "other-chain-1" in found.endpoints[2].findings[0].detail


async def test_without_a_majority_nobody_is_believed(pair: tuple[Recording, Recording]) -> None:
    async with serving(node(pair[0]), Forked(pair[1], Window(421, HEAD))) as addresses:
        found = await check(addresses)
    assert problems(found) == [["HashDisagrees"], ["HashDisagrees"]]
    assert [finding.problem for finding in found.findings] == [Problem.TOO_FEW]


async def test_one_node_under_two_names_is_one_witness(pair: tuple[Recording, Recording]) -> None:
    async with serving(node(pair[0]), node(pair[0])) as addresses:
        found = await check(addresses)
    assert problems(found) == [[], ["SameNode"]]
    assert [finding.problem for finding in found.findings] == [Problem.TOO_FEW]


async def test_an_old_head_is_a_finding(pair: tuple[Recording, Recording]) -> None:
    class Ancient(Replay):
        def _status(self):  # type: ignore[no-untyped-def]
            answer = super()._status()
            body = answer.body.replace(b'"latest_block_time":"2026', b'"latest_block_time":"2020')
            return type(answer)(answer.status, answer.headers, body)

    async with serving(Ancient(pair[0], Window(421, HEAD))) as addresses:
        found = await check(addresses, Rules(deadline=2.0, longest_age=600))
    assert problems(found) == [["Stale"]]


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """Accepts and never answers."""
    release = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        release.set()
        server.close()


async def test_a_hung_endpoint_costs_its_deadline_and_nobody_else_anything(pair: tuple[Recording, Recording]) -> None:
    answered: list[float] = []
    loop = asyncio.get_running_loop()
    rules = Rules(deadline=1.0, longest_age=0)
    async with serving(node(pair[0]), node(pair[1])) as addresses, silent() as hung:
        begun = loop.time()
        await check_chain(
            CHAIN, [hung, *addresses], rules, ssl.create_default_context(), lambda: answered.append(loop.time() - begun)
        )
    # Two have answered before the hung one's first deadline has passed.
    assert sum(moment < rules.deadline for moment in answered) == 2
    assert len(answered) == 3


def certificate(directory: Path, days: int) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    directory.mkdir(exist_ok=True)
    authority, private = directory / "cert.pem", directory / "key.pem"
    authority.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return authority, private


@asynccontextmanager
async def serving_tls(replay: Replay, authority: Path, key: Path) -> AsyncIterator[int]:
    async def answer(request: web.Request) -> web.Response:
        found = replay.comet_get(request.raw_path)
        return web.Response(status=found.status, headers=found.headers, body=found.body)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority, key)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_tls_is_decided_by_the_port_and_certificates_are_checked(
    pair: tuple[Recording, Recording], tmp_path: Path
) -> None:
    authority, key = certificate(tmp_path, 365)
    trust = ssl.create_default_context(cafile=str(authority))
    async with serving_tls(node(pair[0]), authority, key) as port:
        address = f"localhost:{port}"
        good = await check([address], Rules(deadline=2.0, longest_age=0, tls_port=port), trust)
        unknown = await check([address], Rules(deadline=2.0, longest_age=0, tls_port=port))
        elsewhere = await check([address], Rules(deadline=2.0, longest_age=0), trust)
    assert problems(good) == [[]]
    ends = good.endpoints[0].certificate_ends
    assert ends is not None and (ends - datetime.datetime.now(datetime.UTC)).days == 365
    assert problems(unknown) == [["TLS"]], unknown.endpoints[0].findings
    assert problems(elsewhere) == [["TLS"]]
    assert "on port 443 only" in elsewhere.endpoints[0].findings[0].detail


async def test_a_certificate_about_to_end_is_a_finding(pair: tuple[Recording, Recording], tmp_path: Path) -> None:
    authority, key = certificate(tmp_path, 3)
    trust = ssl.create_default_context(cafile=str(authority))
    async with serving_tls(node(pair[0]), authority, key) as port:
        found = await check([f"localhost:{port}"], Rules(deadline=2.0, longest_age=0, tls_port=port), trust)
    assert problems(found) == [["TLS"]]
    assert "ends in 3 days" in found.endpoints[0].findings[0].detail


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", b"[]", b"{}", b'{"node_info":5}', b'{"code":-32603,"message":"Internal error","data":"x"}',
     b'{"sync_info":{"latest_block_height":"x"},"node_info":{}}'],
)  # fmt: skip
async def test_an_answer_that_is_no_status_is_a_finding(body: bytes) -> None:
    app = web.Application()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        found = await check([f"127.0.0.1:{runner.addresses[0][1]}"])
    finally:
        await runner.cleanup()
    assert len(found.endpoints[0].findings) == 1


async def test_silence_is_told_in_words_that_fit(pair: tuple[Recording, Recording], tmp_path: Path) -> None:
    authority, key = certificate(tmp_path, 365)
    async with serving_tls(node(pair[0]), authority, key) as port:
        tls = await check([f"localhost:{port}"], Rules(deadline=2.0, longest_age=0, tls_port=port))
        refused = await check(["127.0.0.1:1", "no-such-host.invalid:26657"])
    assert "certificate verify failed" in tls.endpoints[0].findings[0].detail
    assert "connection refused" in refused.endpoints[0].findings[0].detail
    assert "operation not permitted" not in refused.endpoints[1].findings[0].detail
    assert "unknown error" not in refused.endpoints[1].findings[0].detail
