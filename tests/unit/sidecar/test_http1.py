"""The HTTP server's manners towards clients good and bad (docs/contracts/sidecar.md 2.1, 2.3)."""

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seiops.sidecar.http1 import BodyError, BodyTooLargeError, HttpServer, Limits, Response

QUICK = Limits(header_seconds=0.3, request_seconds=0.6, idle_seconds=0.3)


async def echo(request):
    if request.path == "/big":
        return Response(200, [("Content-Type", "text/plain")], b"x" * 5000)
    if request.path == "/ignore":
        return Response(200)
    try:
        body = await request.read_body(1000)
    except BodyError:
        return Response(400, [], b"broken body")
    except BodyTooLargeError:
        return Response(413, [], b"too large")
    text = f"{request.method} {request.path} {request.query} {body.decode()}"
    return Response(200, [("Content-Type", "text/plain")], text.encode())


@contextlib.asynccontextmanager
async def serving(handler=echo, limits=None):
    server = HttpServer(handler, limits)
    port = await server.start("127.0.0.1", 0)
    try:
        yield port, server
    finally:
        await server.drain(2)


async def raw(port, data, *, half_close=False):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
        if half_close:
            writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer.decode("latin-1")


HOST = "Host: x\r\n"
CLOSE = HOST + "Connection: close\r\n"


@pytest.mark.parametrize(
    ("request_text", "first_line"),
    [
        ("HELLO\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("HELLO\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /x\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /x HTTP/1.1 \r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GE T /x HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("G@T /x HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET x HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request: missing required Host header"),
        ("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", "HTTP/1.1 400 Bad Request: malformed Host header"),
        ("GET /x HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /x HTTP/1.1\r\nHost: x\r\nbad name: 1\r\n\r\n", "HTTP/1.1 400 Bad Request: invalid header name"),
        ("GET /x HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /x HTTP/1.1\r\n folded: 1\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /x HTTP/2.0\r\nHost: x\r\n\r\n", "HTTP/1.1 505 HTTP Version Not Supported: unsupported protocol version"),
        ("GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 501 Not Implemented"),
        ("GET /x HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n", "HTTP/1.1 417 Expectation Failed"),
        (
            "GET /x HTTP/1.1\r\nHost: x\r\nX: " + "a" * 37_000 + "\r\n\r\n",
            "HTTP/1.1 431 Request Header Fields Too Large",
        ),
    ],
)
async def test_what_cannot_be_parsed_is_refused_and_the_connection_closed(request_text, first_line):
    async with serving() as (port, _):
        answer = await raw(port, request_text.encode("latin-1"))
    assert answer.split("\r\n")[0] == first_line
    assert "Connection: close" in answer


@pytest.mark.parametrize(
    ("request_text", "body"),
    [
        (f"GET /x?a=1 HTTP/1.1\r\n{CLOSE}\r\n", "GET /x a=1 "),
        (f"get /x HTTP/1.1\r\n{CLOSE}\r\n", "get /x  "),
        (f"FOO /x HTTP/1.1\r\n{CLOSE}\r\n", "FOO /x  "),
        (f"GET /%61%2Fb HTTP/1.1\r\n{CLOSE}\r\n", "GET /a/b  "),
        ("GET /x HTTP/1.1\nHost: x\nConnection: close\n\n", "GET /x  "),
        (f"GET http://x/y?z HTTP/1.1\r\n{CLOSE}\r\n", "GET /y z "),
        (f"POST /x HTTP/1.1\r\n{CLOSE}Content-Length: 5\r\n\r\nhello and more", "POST /x  hello"),
        (f"POST /x HTTP/1.1\r\n{CLOSE}Transfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n", "POST /x  abcde"),
        (f"POST /x HTTP/1.1\r\n{CLOSE}Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "POST /x  a"),
        (f"POST /x HTTP/1.1\r\n{CLOSE}\r\n{{}}", "POST /x  "),
        (f"GET /x HTTP/1.1\r\n{CLOSE}X-Pad: {'a' * 36_000}\r\n\r\n", "GET /x  "),
    ],
)  # fmt: skip
async def test_what_can_be_parsed_reaches_the_handler(request_text, body):
    async with serving() as (port, _):
        answer = await raw(port, request_text.encode("latin-1"))
    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert answer.split("\r\n\r\n", 1)[1] == body


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (f"POST /x HTTP/1.1\r\n{CLOSE}Content-Length: 2000\r\n\r\n", "413 Request Entity Too Large"),
        (f"POST /x HTTP/1.1\r\n{CLOSE}Transfer-Encoding: chunked\r\n\r\nfff\r\n", "413 Request Entity Too Large"),
        (f"POST /x HTTP/1.1\r\n{CLOSE}Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "400 Bad Request"),
        (f"POST /x HTTP/1.1\r\n{CLOSE}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "400 Bad Request"),
        (f"POST /x HTTP/1.1\r\n{CLOSE}Transfer-Encoding: chunked\r\n\r\n" + "1" * 5000, "400 Bad Request"),
    ],
)
async def test_bodies_that_are_too_large_or_badly_framed(request_text, status):
    async with serving() as (port, _):
        assert (await raw(port, request_text.encode())).startswith(f"HTTP/1.1 {status}\r\n")


async def test_a_body_cut_short_by_a_half_close_is_answered():
    async with serving() as (port, _):
        answer = await raw(port, f"POST /x HTTP/1.1\r\n{CLOSE}Content-Length: 50\r\n\r\nabc".encode(), half_close=True)
    assert answer.endswith("broken body")


async def test_a_client_that_never_finishes_its_headers_gets_no_word():
    async with serving(limits=QUICK) as (port, _):
        assert await raw(port, b"GET /x HTTP/1.1\r\nHost: x\r\n") == ""


async def test_a_client_that_never_finishes_its_body_gets_an_answer():
    async with serving(limits=QUICK) as (port, _):
        answer = await raw(port, b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
    assert answer.endswith("broken body")


async def test_an_idle_connection_is_closed():
    async with serving(limits=QUICK) as (port, _):
        assert await raw(port, b"") == ""
        answer = await raw(port, f"GET /x HTTP/1.1\r\n{HOST}\r\n".encode())
    assert answer.count("HTTP/1.1 200") == 1


async def test_pipelined_requests_are_answered_in_order():
    one = f"POST /1 HTTP/1.1\r\n{HOST}Content-Length: 1\r\n\r\na"
    two = f"GET /2 HTTP/1.1\r\n{CLOSE}\r\n"
    async with serving() as (port, _):
        answer = await raw(port, (one + two).encode())
    assert [part.split("\r\n\r\n")[1] for part in answer.split("HTTP/1.1 ")[1:]] == ["POST /1  a", "GET /2  "]


async def test_continue_is_sent_only_when_the_body_is_asked_for():
    head = f"POST %s HTTP/1.1\r\n{CLOSE}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    async with serving() as (port, _):
        asked = await raw(port, (head % "/x").encode() + b"abc")
        ignored = await raw(port, (head % "/ignore").encode())
    assert asked.startswith("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert ignored.startswith("HTTP/1.1 200 OK\r\n")


async def test_http_1_0_is_served_and_closed():
    async with serving() as (port, _):
        answer = await raw(port, b"GET /x HTTP/1.0\r\n\r\n")
        kept = await raw(port, b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /y HTTP/1.0\r\n\r\n")
    assert answer.startswith("HTTP/1.0 200 OK\r\n")
    assert "Connection" not in answer
    assert kept.count("HTTP/1.0 200 OK") == 2


async def test_head_has_no_body_and_large_answers_are_chunked():
    async with serving() as (port, _):
        head = await raw(port, f"HEAD /x HTTP/1.1\r\n{CLOSE}\r\n".encode())
        big = await raw(port, f"GET /big HTTP/1.1\r\n{CLOSE}\r\n".encode())
        old = await raw(port, b"GET /big HTTP/1.0\r\n\r\n")
    assert head.endswith("\r\n\r\n")
    assert "Content-Length: 9" in head
    assert "Transfer-Encoding: chunked" in big
    assert big.endswith("\r\n0\r\n\r\n")
    assert old.endswith("x" * 5000)


async def test_more_connections_than_allowed_are_turned_away():
    async with serving(limits=Limits(connections=2)) as (port, _):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        while True:
            try:
                answer = await raw(port, f"GET /x HTTP/1.1\r\n{CLOSE}\r\n".encode())
            except ConnectionError:
                answer = ""
            if answer == "":
                break
        for _, writer in held:
            writer.close()


async def test_a_drain_lets_requests_finish_and_accepts_no_more():
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(request):
        entered.set()
        await go.wait()
        return Response(200, [], b"done")

    server = HttpServer(slow)
    port = await server.start("127.0.0.1", 0)
    asking = asyncio.create_task(raw(port, f"GET /x HTTP/1.1\r\n{HOST}\r\n".encode()))
    await entered.wait()
    draining = asyncio.create_task(server.drain(5))
    await asyncio.sleep(0.05)
    with pytest.raises(OSError):
        await raw(port, b"GET / HTTP/1.1\r\n\r\n")
    go.set()
    assert await draining
    assert (await asking).endswith("done")


async def test_a_drain_gives_up_on_a_handler_that_does_not_end():
    async def stuck(request):
        await asyncio.sleep(60)
        return Response(200)

    server = HttpServer(stuck)
    port = await server.start("127.0.0.1", 0)
    asking = asyncio.create_task(raw(port, f"GET /x HTTP/1.1\r\n{HOST}\r\n".encode()))
    await asyncio.sleep(0.1)
    assert not await server.drain(0.1)
    with contextlib.suppress(ConnectionError):
        assert await asking == ""


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300), prefix=st.sampled_from([b"", b"GET /x HTTP/1.1\r\nHost: x\r\n", b"POST /x HTTP/1.1\r\nHost: x\r\n"
                                                              b"Transfer-Encoding: chunked\r\n\r\n"]))  # fmt: skip
def test_no_bytes_at_all_break_the_server(data, prefix):
    async def probe():
        problems = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        async with serving(limits=Limits(header_seconds=0.05, request_seconds=0.05, idle_seconds=0.05)) as (port, _):
            with contextlib.suppress(ConnectionError):
                await raw(port, prefix + data, half_close=True)
            with contextlib.suppress(ConnectionError):
                assert (await raw(port, f"GET /x HTTP/1.1\r\n{CLOSE}\r\n".encode())).startswith("HTTP/1.1 200")
        assert not problems

    asyncio.run(probe())
