"""Kubeconfigs as people have them: every way to say who we are, and errors that name file and field."""

import base64
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from seiops.kube import ConfigError, connect, from_kubeconfig, in_cluster
from seiops.kube.client.credentials import FileToken


def _write(path: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> Path:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "here"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:1/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


async def test_a_literal_token(tmp_path: Path) -> None:
    connection = from_kubeconfig(_write(tmp_path / "kc", {"token": "abc"}, {"insecure-skip-tls-verify": True}))
    assert (connection.server, connection.namespace) == ("https://127.0.0.1:1", "here")
    assert await connection.credentials.token() == "abc"


async def test_a_token_file_is_relative_to_the_kubeconfig_and_read_again(tmp_path: Path) -> None:
    (tmp_path / "tok").write_text("one\n", encoding="utf-8")
    credentials = from_kubeconfig(_write(tmp_path / "kc", {"tokenFile": "tok"})).credentials
    assert await credentials.token() == "one"
    (tmp_path / "tok").write_text("two", encoding="utf-8")
    assert await credentials.token() == "one"
    credentials.drop()
    assert await credentials.token() == "two"


async def test_a_token_file_is_read_again_after_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tok").write_text("one", encoding="utf-8")
    source = FileToken(tmp_path / "tok")
    assert await source.token() == "one"
    (tmp_path / "tok").write_text("two", encoding="utf-8")
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert await source.token() == "two"


async def test_several_files_are_merged_as_kubectl_does(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "tok").write_text("mine", encoding="utf-8")
    first, second = tmp_path / "sub" / "users", tmp_path / "clusters"
    first.write_text(yaml.safe_dump({"users": [{"name": "u", "user": {"tokenFile": "tok"}}]}), encoding="utf-8")
    _write(second, {"token": "from the second file"})
    listed = os.pathsep.join(["", str(tmp_path / "missing"), str(first), str(second)])
    connection = connect(env={"KUBECONFIG": listed})
    assert connection.server == "https://127.0.0.1:1"
    assert await connection.credentials.token() == "mine"
    with pytest.raises(ConfigError, match=r"contexts has no entry named 'other'"):
        connect(env={"KUBECONFIG": listed}, context="other")
    with pytest.raises(ConfigError, match="none of the kubeconfig files exists"):
        connect(env={"KUBECONFIG": str(tmp_path / "missing")})


async def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"failed to read token file .*nowhere"):
        await FileToken(tmp_path / "nowhere").token()


async def test_a_credential_plugin_is_run_once_and_again_when_its_token_has_expired(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        "#!/bin/sh\n"
        'echo x >> "$COUNT"\n'
        'case "$KUBERNETES_EXEC_INFO" in *ExecCredential*) ;; *) exit 3;; esac\n'
        'printf \'{"status": {"token": "t%s", "expirationTimestamp": "%s"}}\' "$(wc -l < "$COUNT" | tr -d " ")" "$UNTIL"\n',
        encoding="utf-8",
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)

    def user(until: str) -> dict[str, Any]:
        env = [{"name": "COUNT", "value": str(tmp_path / "count")}, {"name": "UNTIL", "value": until}]
        version = "client.authentication.k8s.io/v1"
        return {"exec": {"apiVersion": version, "command": "./plugin", "args": ["a"], "env": env}}

    lasting = from_kubeconfig(_write(tmp_path / "kc", user("2999-01-01T00:00:00Z"))).credentials
    assert [await lasting.token(), await lasting.token()] == ["t1", "t1"]
    expired = from_kubeconfig(_write(tmp_path / "kc", user("2001-01-01T00:00:00Z"))).credentials
    assert [await expired.token(), await expired.token()] == ["t2", "t3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1", "no mapping"),
        ("a: [", "not YAML"),
        ("current-context: x", "contexts has no entry named 'x'"),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "kc").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        from_kubeconfig(tmp_path / "kc")


def test_a_bad_exec_version_and_a_bad_authority_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exec apiVersion 'v0'"):
        from_kubeconfig(_write(tmp_path / "kc", {"exec": {"apiVersion": "v0", "command": "x"}}))
    with pytest.raises(ConfigError, match="certificate-authority 'gone'"):
        from_kubeconfig(_write(tmp_path / "kc", {}, {"certificate-authority": "gone"}))


def test_a_broken_authority_in_the_file_is_refused(tmp_path: Path) -> None:
    data = base64.b64encode(b"not a certificate").decode()
    with pytest.raises(ConfigError, match="certificate-authority"):
        from_kubeconfig(_write(tmp_path / "kc", {}, {"certificate-authority-data": data}))


def test_outside_a_cluster_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--kubeconfig"):
        in_cluster({}, tmp_path)
