"""The EC2 client: AWS's own signature vectors, pages, refusals, and where credentials come from."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from seiops.controller.ec2 import Credentials, Ec2Client, Ec2Error, sign

MOMENT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
EXAMPLE = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")


@pytest.mark.parametrize(
    ("method", "headers", "body", "signature"),
    [
        ("GET", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "POST",
            {"Content-Type": "application/x-www-form-urlencoded"},
            b"Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
)
def test_signatures_equal_the_published_vectors(
    method: str, headers: dict[str, str], body: bytes, signature: str
) -> None:
    url = "https://example.amazonaws.com/"
    added = sign(method, url, headers, body, EXAMPLE, "us-east-1", "service", MOMENT)
    assert added["Authorization"].endswith(f"Signature={signature}")


Answer = Callable[[web.Request], Awaitable[web.Response]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Answer], Awaitable[str]]]:
    runners: list[web.AppRunner] = []

    async def start(answer: Answer) -> str:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


def _page(names: list[str], following: str = "") -> web.Response:
    items = "".join(
        f"<item><instancesSet><item><dnsName>{name}</dnsName><privateIpAddress>10.0.0.1</privateIpAddress>"
        f"<tagSet><item><key>Name</key><value>{name}</value></item></tagSet></item></instancesSet></item>"
        for name in names
    )
    token = f"<nextToken>{following}</nextToken>" if following else ""
    text = f'<DescribeInstancesResponse xmlns="x"><reservationSet>{items}</reservationSet>{token}</DescribeInstancesResponse>'
    return web.Response(text=text, content_type="text/xml")


async def test_all_pages_are_read_with_filters_and_signature(serve: Callable[[Answer], Awaitable[str]]) -> None:
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        seen.append(form | {"auth": request.headers["Authorization"]})
        return _page(["b"]) if "NextToken" in form else _page(["a"], "2")

    client = Ec2Client(
        {"AWS_ENDPOINT_URL": await serve(answer), "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    )
    found = await client.instances("eu-central-1", {"role": "peer", "chain": "x"})
    await client.close()
    assert [instance.hosts for instance in found] == [("a", "", "", "10.0.0.1"), ("b", "", "", "10.0.0.1")]
    assert found[0].tags == {"Name": "a"}
    assert (seen[0]["Filter.1.Name"], seen[0]["Filter.1.Value.1"]) == ("instance-state-name", "running")
    assert (seen[0]["Filter.2.Name"], seen[0]["Filter.3.Name"]) == ("tag:chain", "tag:role")
    assert "/eu-central-1/ec2/aws4_request" in seen[0]["auth"]


async def test_a_refusal_says_code_and_message(serve: Callable[[Answer], Awaitable[str]]) -> None:
    async def answer(_: web.Request) -> web.Response:
        body = "<Response><Errors><Error><Code>Denied</Code><Message>not you</Message></Error></Errors></Response>"
        return web.Response(status=403, text=body)

    client = Ec2Client(
        {"AWS_ENDPOINT_URL": await serve(answer), "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    )
    with pytest.raises(Ec2Error, match="403: Denied: not you"):
        await client.instances("eu-central-1", {"a": "b"})
    await client.close()


async def test_credentials_from_the_container_endpoint(
    serve: Callable[[Answer], Awaitable[str]], tmp_path: Path
) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path == "/creds":
            assert request.headers["Authorization"] == "pod-token"
            given = {"AccessKeyId": "K2", "SecretAccessKey": "s", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}
            return web.json_response(given)
        assert "Credential=K2/" in request.headers["Authorization"]
        assert request.headers["X-Amz-Security-Token"] == "t"
        return _page([])

    url = await serve(answer)
    (tmp_path / "token").write_text("pod-token\n", encoding="utf-8")
    client = Ec2Client(
        {
            "AWS_ENDPOINT_URL_EC2": url,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/creds",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
        }
    )
    assert await client.instances("r", {"a": "b"}) == await client.instances("r", {"a": "b"}) == []
    await client.close()
    assert asked.count("/creds") == 1


async def test_credentials_from_a_web_identity(serve: Callable[[Answer], Awaitable[str]], tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("Action") == "AssumeRoleWithWebIdentity":
            assert form["WebIdentityToken"] == "jwt" and form["RoleArn"] == "arn:role"
            text = (
                '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>K3</AccessKeyId>"
                "<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
                "<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
                "</AssumeRoleWithWebIdentityResponse>"
            )
            return web.Response(text=text)
        assert "Credential=K3/" in request.headers["Authorization"]
        return _page(["a"])

    url = await serve(answer)
    (tmp_path / "jwt").write_text("jwt", encoding="utf-8")
    client = Ec2Client(
        {"AWS_ENDPOINT_URL": url, "AWS_ENDPOINT_URL_STS": url, "AWS_ROLE_ARN": "arn:role"}
        | {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "jwt")}
    )
    assert len(await client.instances("r", {"a": "b"})) == 1
    await client.close()


async def test_nonsense_from_an_endpoint_is_an_error(serve: Callable[[Answer], Awaitable[str]]) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=json.dumps({"no": "credentials"}))

    url = await serve(answer)
    client = Ec2Client({"AWS_ENDPOINT_URL": url, "AWS_CONTAINER_CREDENTIALS_FULL_URI": url})
    with pytest.raises(Ec2Error, match="gave no credentials"):
        await client.instances("r", {"a": "b"})
    await client.close()
