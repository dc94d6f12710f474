"""Where the API server is and who we are: kubeconfig files, in-cluster files, tokens that change while we run."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import orjson
import yaml

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_FILE_LIFETIME = 60.0
"""Seconds until a token file is read again; the kubelet rotates projected tokens long before they expire."""
EXEC_DEADLINE = 30.0
EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class ConfigError(Exception):
    """A kubeconfig that cannot be used; the message names the file and the field."""


class TokenSource(Protocol):
    async def token(self) -> str | None:
        """The bearer token to send now."""

    def drop(self) -> None:
        """Forget what is cached: the server answered 401."""


@dataclass(slots=True)
class StaticToken:
    value: str | None

    async def token(self) -> str | None:
        return self.value

    def drop(self) -> None:
        """A literal token cannot change."""


@dataclass(slots=True)
class FileToken:
    path: Path
    _value: str = ""
    _read_at: float = 0.0

    async def token(self) -> str | None:
        if not self._value or time.monotonic() - self._read_at > TOKEN_FILE_LIFETIME:
            try:
                self._value = self.path.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigError(f"failed to read token file {str(self.path)!r}: {error.strerror}") from error
            self._read_at = time.monotonic()
        return self._value

    def drop(self) -> None:
        self._value = ""


@dataclass(slots=True)
class ExecToken:
    """A credential plugin (client.authentication.k8s.io): run the command, use its token until it expires."""

    command: list[str]
    env: dict[str, str]
    api_version: str
    _value: str = ""
    _expires: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def token(self) -> str | None:
        async with self._lock:
            if not self._value or time.time() > self._expires - 10:
                await self._run()
            return self._value

    def drop(self) -> None:
        self._value = ""

    async def _run(self) -> None:
        request = {"apiVersion": self.api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
        env = {**os.environ, **self.env, "KUBERNETES_EXEC_INFO": orjson.dumps(request).decode()}
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
            )
        except OSError as error:
            raise ConfigError(f"credential plugin {self.command[0]!r} cannot be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(EXEC_DEADLINE):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise ConfigError(f"credential plugin {self.command[0]!r} gave no answer in {EXEC_DEADLINE:g} s") from None
        if process.returncode != 0:
            raise ConfigError(f"credential plugin {self.command[0]!r} ended with status {process.returncode}")
        try:
            status = orjson.loads(output)["status"]
            self._value = str(status["token"])
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"credential plugin {self.command[0]!r} printed no ExecCredential with a token") from None
        expires = status.get("expirationTimestamp")
        self._expires = datetime.fromisoformat(expires).timestamp() if expires else float("inf")


@dataclass(frozen=True, slots=True)
class Connection:
    """Everything a client needs to reach one API server as one user."""

    server: str
    tls: ssl.SSLContext | None
    credentials: TokenSource
    namespace: str = "default"
    server_name: str | None = None
    proxy: str | None = None


def in_cluster(env: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT_DIR) -> Connection:
    """From the files the kubelet mounts and the variables it sets; ``ConfigError`` outside a Pod."""
    host, port = env.get("KUBERNETES_SERVICE_HOST"), env.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ConfigError(
            "not running in a Pod (KUBERNETES_SERVICE_HOST is not set): give --kubeconfig or set KUBECONFIG"
        )
    tls = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    host = f"[{host}]" if ":" in host else host
    namespace = own_namespace(directory) or "default"
    return Connection(f"https://{host}:{port}", tls, FileToken(directory / "token"), namespace)


def own_namespace(directory: Path = SERVICE_ACCOUNT_DIR) -> str | None:
    """Namespace of the Pod we run in, None outside a cluster."""
    try:
        return (directory / "namespace").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def connect(
    kubeconfig: str | None = None, env: Mapping[str, str] = os.environ, context: str | None = None
) -> Connection:
    """The given file, else the files of ``KUBECONFIG``, else the Pod's own files, else ``~/.kube/config``: the order
    kubectl users know. A context asks for a kubeconfig, also inside a Pod."""
    if kubeconfig:
        return from_kubeconfig(Path(kubeconfig), context)
    if listed := [Path(path) for path in env.get("KUBECONFIG", "").split(os.pathsep) if path]:
        return from_kubeconfigs(listed, context)
    default = Path.home() / ".kube" / "config"
    if context or ("KUBERNETES_SERVICE_HOST" not in env and default.exists()):
        return from_kubeconfig(default, context)
    return in_cluster(env)


def from_kubeconfig(path: Path, context: str | None = None) -> Connection:
    """The named or current context of a kubeconfig file. Relative paths inside it are relative to the file."""
    return _chosen([_load(path)], context)


def from_kubeconfigs(paths: Sequence[Path], context: str | None = None) -> Connection:
    """The same of several files merged: what an earlier one says counts; files that are not there are passed over."""
    there = [_load(path) for path in paths if path.exists()]
    if not there:
        raise ConfigError(f"none of the kubeconfig files exists: {os.pathsep.join(map(str, paths))}")
    return _chosen(there, context)


@dataclass(frozen=True, slots=True)
class _Document:
    path: Path
    content: dict[str, Any]


def _load(path: Path) -> _Document:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"kubeconfig {str(path)!r} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"kubeconfig {str(path)!r} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"kubeconfig {str(path)!r} holds no mapping")
    return _Document(path, document)


def _chosen(documents: Sequence[_Document], context: str | None) -> Connection:
    wanted = context or next(filter(None, (one.content.get("current-context") for one in documents)), None)
    _, chosen = _named(documents, "contexts", wanted, "context")
    path, cluster = _named(documents, "clusters", chosen.get("cluster"), "cluster")
    user_path, user = path, dict[str, Any]()
    if chosen.get("user"):
        user_path, user = _named(documents, "users", chosen["user"], "user")
    server = str(cluster.get("server") or "").rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise ConfigError(f"kubeconfig {str(path)!r}: cluster {chosen.get('cluster')!r} has no http(s) server")
    return Connection(
        server,
        _tls(path, cluster, user_path, user) if server.startswith("https://") else None,
        _credentials(user_path, user),
        chosen.get("namespace") or "default",
        cluster.get("tls-server-name"),
        cluster.get("proxy-url"),
    )


def _named(documents: Sequence[_Document], section: str, name: Any, item: str) -> tuple[Path, dict[str, Any]]:
    """The first entry of that name and the file it stands in."""
    for document in documents:
        for entry in document.content.get(section) or ():
            if entry.get("name") == name:
                return document.path, entry.get(item) or {}
    files = os.pathsep.join(str(one.path) for one in documents)
    raise ConfigError(f"kubeconfig {files!r}: {section} has no entry named {name!r}")


def _bytes(path: Path, section: dict[str, Any], name: str) -> bytes | None:
    """Content of ``<name>-data`` (base64, wins) or of the file ``<name>``."""
    if section.get(f"{name}-data"):
        try:
            return base64.b64decode(section[f"{name}-data"])
        except ValueError as error:
            raise ConfigError(f"kubeconfig {str(path)!r}: {name}-data is not base64: {error}") from error
    if section.get(name):
        try:
            return path.parent.joinpath(str(section[name])).read_bytes()
        except OSError as error:
            raise ConfigError(f"kubeconfig {str(path)!r}: {name} {section[name]!r}: {error.strerror}") from error
    return None


def _tls(path: Path, cluster: dict[str, Any], user_path: Path, user: dict[str, Any]) -> ssl.SSLContext:
    authority = _bytes(path, cluster, "certificate-authority")
    try:
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"kubeconfig {str(path)!r}: certificate-authority is not a PEM certificate: {error}"
        ) from error
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _bytes(user_path, user, "client-certificate"), _bytes(user_path, user, "client-key")
    if certificate and key:
        # The ssl module reads certificates from files only; this one lives for the call and is readable by us alone.
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(certificate.rstrip() + b"\n" + key)
            pair.flush()
            try:
                context.load_cert_chain(pair.name)
            except (ssl.SSLError, ValueError) as error:
                raise ConfigError(
                    f"kubeconfig {str(user_path)!r}: client-certificate and client-key: {error}"
                ) from error
    return context


def _credentials(path: Path, user: dict[str, Any]) -> TokenSource:
    if user.get("token"):
        return StaticToken(str(user["token"]))
    if user.get("tokenFile"):
        return FileToken(path.parent / user["tokenFile"])
    if plugin := user.get("exec"):
        version = plugin.get("apiVersion")
        if version not in EXEC_VERSIONS:
            raise ConfigError(f"kubeconfig {str(path)!r}: exec apiVersion {version!r}, expected one of {EXEC_VERSIONS}")
        command = str(plugin.get("command") or "")
        if "/" in command and not command.startswith("/"):
            command = str(path.parent / command)
        env = {entry["name"]: entry["value"] for entry in plugin.get("env") or ()}
        return ExecToken([command, *(plugin.get("args") or ())], env, version)
    return StaticToken(None)
