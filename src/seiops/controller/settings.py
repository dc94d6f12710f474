"""Flags and environment of the controller process, checked before anything starts.

Flags and variables are those of the Go controller, so its manifests start this one (docs/contracts/
controller-behaviour.md 1.1, 1.2); a few of our own serve local runs and the replay of recordings. Whatever is wrong
with the environment or the config file is reported in one go: who fixes a cluster should not learn it line by line.

Public: `load_environment(environ) -> Settings`, `parse_flags(argv) -> Flags`, `usage()`, `SettingsError`, `FlagError`.
`python -m seiops.controller.settings --markdown` prints docs/configuration.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from seiops.controller import appconfig
from seiops.controller.appconfig import AppConfig, AppConfigError, Problem
from seiops.controller.resources.compute import DEFAULTS

CONFIG_VARIABLE = "SEI_CONTROLLER_CONFIG"

REPLACED_VARIABLES = {
    "SEI_NODEPOOL_NAME": "scheduling.nodepoolName",
    "SEI_NODEPOOL_ARCHIVE": "scheduling.nodepoolArchive",
    "SEI_TOLERATION_KEY": "scheduling.tolerationKey",
    "SEI_SERVICE_ACCOUNT": "scheduling.serviceAccount",
    "SEI_STORAGE_CLASS_PERF": "storage.classPerf",
    "SEI_STORAGE_CLASS_DEFAULT": "storage.classDefault",
    "SEI_STORAGE_CLASS_ARCHIVE": "storage.classArchive",
    "SEI_STORAGE_SIZE_DEFAULT": "storage.sizeDefault",
    "SEI_STORAGE_SIZE_ARCHIVE": "storage.sizeArchive",
    "SEI_RESOURCE_CPU_DEFAULT": "resources.node.cpuRequest",
    "SEI_RESOURCE_MEM_DEFAULT": "resources.node.memory",
    "SEI_RESOURCE_CPU_ARCHIVE": "resources.archive.cpuRequest",
    "SEI_RESOURCE_MEM_ARCHIVE": "resources.archive.memory",
    "SEI_SNAPSHOT_BUCKET": "snapshot.bucket",
    "SEI_SNAPSHOT_REGION": "snapshot.region",
    "SEI_RESULT_EXPORT_BUCKET": "resultExport.bucket",
    "SEI_RESULT_EXPORT_REGION": "resultExport.region",
    "SEI_RESULT_EXPORT_PREFIX": "resultExport.prefix",
    "SEI_GENESIS_BUCKET": "genesis.bucket",
    "SEI_GENESIS_REGION": "genesis.region",
    "SEI_SIDECAR_IMAGE": "images.sidecar",
    "SEI_KUBE_RBAC_PROXY_IMAGE": "images.kubeRBACProxy",
    "SEI_COSMOS_EXPORTER_IMAGE": "images.cosmosExporter",
}
"""Variables of earlier releases, never read, and the key that took over from each (rulings 11)."""


class SettingsError(Exception):
    """The process must not start. `problems` holds every finding, `warnings` what would not have stopped it.

    `summary` is the log line of the Go controller for this kind of failure, the message adds all findings.
    """

    def __init__(self, summary: str, detail: str, problems: list[Problem], warnings: list[Problem]) -> None:
        super().__init__(f"{summary}: {detail}")
        self.summary = summary
        self.detail = detail
        self.problems = problems
        self.warnings = warnings


class FlagError(Exception):
    """A flag that is not known or a value it does not take; the process exits 2."""


class Environment(BaseModel):
    """Variables read at start. All are optional but the first."""

    model_config = ConfigDict(frozen=True)

    config_path: str = Field(
        default="",
        alias="SEI_CONTROLLER_CONFIG",
        description="path of the app-config file; blanks around it are ignored",
    )
    pod_name: str = Field(default="", alias="POD_NAME", description="name of the controller's Pod, for telemetry")
    pod_namespace: str = Field(
        default="",
        alias="POD_NAMESPACE",
        description="namespace of the controller's Pod; where the Lease is if the ServiceAccount mount does not say",
    )
    gateway_name: str = Field(default="", alias="SEI_GATEWAY_NAME", description="accepted, used by nothing")
    gateway_namespace: str = Field(default="", alias="SEI_GATEWAY_NAMESPACE", description="accepted, used by nothing")
    gateway_domain: str = Field(default="", alias="SEI_GATEWAY_DOMAIN", description="accepted, used by nothing")
    gateway_public_domain: str = Field(
        default="", alias="SEI_GATEWAY_PUBLIC_DOMAIN", description="accepted, used by nothing"
    )
    otlp_endpoint: str = Field(
        default="",
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="accepted; metrics are served for scraping and are not pushed",
    )
    token_file: str = Field(
        default="/var/run/secrets/kubernetes.io/serviceaccount/token",
        alias="SEIOPS_TOKEN_FILE",
        description="token sent to sidecars",
    )
    resolve_file: str = Field(
        default="",
        alias="SEIOPS_RESOLVE_FILE",
        description="development only: addresses of `*.svc.cluster.local` names, read again whenever it changes",
    )
    interval_scale: str = Field(
        default="1",
        alias="SEIOPS_INTERVAL_SCALE",
        description="replay of recordings only: factor on every poll, back-off and wait, above 0 and at most 1",
    )


class Settings(BaseModel):
    """What the process runs with: the checked file, the environment, and findings that stop no start."""

    model_config = ConfigDict(frozen=True)

    platform: AppConfig
    environment: Environment
    interval_scale: float = 1.0
    warnings: tuple[Problem, ...] = ()

    @property
    def config_path(self) -> str:
        """Path of the app-config file without blanks around it; empty if there is none."""
        return self.environment.config_path.strip()


class Flags(BaseModel):
    """Command-line flags, written `--name=value` or `--name value`; a switch alone means true."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    metrics_bind_address: str = Field(
        default=":8080", alias="metrics-bind-address", description="metrics listener; `0` switches it off"
    )
    health_probe_bind_address: str = Field(
        default=":8081", alias="health-probe-bind-address", description="listener of `/healthz` and `/readyz`"
    )
    leader_elect: bool = Field(default=True, alias="leader-elect", description="work only while holding the Lease")
    metrics_secure: bool = Field(
        default=False, alias="metrics-secure", description="metrics over HTTPS, each request authorized"
    )
    metrics_cert_path: str = Field(
        default="", alias="metrics-cert-path", description="directory of the metrics certificate; empty: self-signed"
    )
    metrics_cert_name: str = Field(default="tls.crt", alias="metrics-cert-name", description="certificate file")
    metrics_cert_key: str = Field(default="tls.key", alias="metrics-cert-key", description="key file")
    enable_http2: bool = Field(
        default=False, alias="enable-http2", description="accepted; the metrics listener speaks HTTP/1.1 only"
    )
    kubeconfig: str = Field(default="", description="kubeconfig when running outside a cluster")
    zap_devel: bool = Field(default=False, alias="zap-devel", description="log for a terminal, from level debug")
    zap_encoder: str = Field(default="", alias="zap-encoder", description="`json` or `console`")
    zap_log_level: str = Field(
        default="", alias="zap-log-level", description="`debug`, `info`, `error`, `panic` or a number above 0"
    )
    zap_stacktrace_level: str = Field(
        default="", alias="zap-stacktrace-level", description="`info`, `error` or `panic`; accepted"
    )
    zap_time_encoding: str = Field(
        default="",
        alias="zap-time-encoding",
        description="`epoch`, `millis`, `nano`, `iso8601`, `rfc3339` or `rfc3339nano`",
    )
    namespaces: str = Field(default="", description="only these namespaces, separated by commas; empty: all")
    lease_name: str = Field(default="bc1f5b0a.sei.io", alias="lease-name", description="name of the Lease")
    lease_namespace: str = Field(
        default="", alias="lease-namespace", description="namespace of the Lease; empty: that of the process"
    )
    workers: int = Field(
        default=128, description="nodes worked on at once; most of a pass is waiting, so there can be many"
    )

    def namespace_list(self) -> list[str]:
        """The namespaces to watch; [] means all."""
        return [name.strip() for name in self.namespaces.split(",") if name.strip()]


_CHOICES = {
    "zap-encoder": ("", "json", "console"),
    "zap-stacktrace-level": ("", "info", "error", "panic"),
    "zap-time-encoding": ("", "epoch", "millis", "nano", "iso8601", "rfc3339", "rfc3339nano"),
}
_LOG_LEVELS = ("", "debug", "info", "error", "panic")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def load_environment(environ: Mapping[str, str]) -> Settings:
    """Settings of the process from its environment and the config file it names.

    Raises SettingsError with every problem at once. A syncer entry that is not `host:port` is a warning: it blocks
    its chain and nothing else (rulings 10); a wrong type under `stateSync.syncers` refuses the start, as any other
    wrong type in the file does.
    """
    environment = Environment.model_validate({name: value for name, value in environ.items() if value.strip()})
    scale, problems = _interval_scale(environment.interval_scale)
    config, unreadable = _load(environment.config_path)
    misshapen = unreadable.problems if unreadable is not None else []
    warnings = [problem for problem in appconfig.syncer_problems(config) if problem not in misshapen]
    if unreadable is None or unreadable.readable is not None:
        missing = [_hinted(problem, environ) for problem in appconfig.check(config)]
        problems = [problem for problem in missing if not _is_covered(problem, misshapen)] + problems
    if unreadable is not None:
        detail = "; ".join([str(unreadable), *map(str, problems)])
        raise SettingsError("Failed to load platform configuration", detail, misshapen + problems, warnings)
    if problems:
        raise SettingsError("Invalid platform configuration", "; ".join(map(str, problems)), problems, warnings)
    return Settings(platform=config, environment=environment, interval_scale=scale, warnings=tuple(warnings))


def _load(path: str) -> tuple[AppConfig, AppConfigError | None]:
    """The file as far as it can be read, and what is wrong with its shape, the registry's included."""
    try:
        config = appconfig.load(path)
    except AppConfigError as error:
        config = error.readable or AppConfig()
        refused = error.problems + appconfig.syncer_shape_problems(config)
        return config, appconfig.shape_error(path, refused, config) if error.readable is not None else error
    refused = appconfig.syncer_shape_problems(config)
    return config, appconfig.shape_error(path, refused, config) if refused else None


def _is_covered(problem: Problem, misshapen: list[Problem]) -> bool:
    """Whether a key is missing only because it, or the section around it, could not be read."""
    return any(problem.path == wrong.path or problem.path.startswith(f"{wrong.path}.") for wrong in misshapen)


def _hinted(problem: Problem, environ: Mapping[str, str]) -> Problem:
    """Says which variable used to hold the value, if it is still set: it is the likeliest reason for the gap."""
    for variable, key in REPLACED_VARIABLES.items():
        if key == problem.path and environ.get(variable, "").strip():
            note = (
                f"{problem.sentence} ({variable} is no longer read: set {key} in the file named by {CONFIG_VARIABLE})"
            )
            return replace(problem, sentence=note)
    return problem


def _interval_scale(text: str) -> tuple[float, list[Problem]]:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if 0 < scale <= 1:
        return scale, []
    expected = "a number above 0 and at most 1"
    name = "SEIOPS_INTERVAL_SCALE"
    return 1.0, [Problem(name, text, expected, f"{name} is {text!r}, expected {expected}")]


def parse_flags(arguments: Sequence[str]) -> Flags:
    """Flags of the process as Go's flag package reads them: one or two dashes, parsing ends at the first non-flag.

    Raises FlagError with the message the Go controller prints.
    """
    given: dict[str, Any] = {}
    remaining = list(arguments)
    while remaining and remaining[0].startswith("-") and remaining[0] not in ("-", "--"):
        name, has_value, value = _dashless(remaining.pop(0)).partition("=")
        default = _flag_defaults().get(name)
        if default is None:
            raise FlagError(f"flag provided but not defined: -{name}")
        if isinstance(default, bool):
            given[name] = _switch(name, value if has_value else "true")
            continue
        if not has_value:
            if not remaining:
                raise FlagError(f"flag needs an argument: -{name}")
            value = remaining.pop(0)
        given[name] = _flag_value(name, value, default)
    return Flags.model_validate(given)


def usage() -> str:
    """What the flags are, as Go's flag package prints them."""
    lines = ["Usage of seiops controller:"]
    for name, field in _sorted_flags():
        kind = {bool: "", int: " int"}.get(type(field.default), " string")
        shown = f' (default "{field.default}")' if isinstance(field.default, str) and field.default else ""
        shown = f" (default {str(field.default).lower()})" if field.default and not shown else shown
        lines += [f"  -{name}{kind}", f"    \t{field.description}{shown}"]
    return "\n".join(lines) + "\n"


def _dashless(argument: str) -> str:
    return argument[2:] if argument.startswith("--") else argument[1:]


def _flag_defaults() -> dict[str, Any]:
    return {field.alias or name: field.default for name, field in Flags.model_fields.items()}


def _sorted_flags() -> list[tuple[str, Any]]:
    return sorted((field.alias or name, field) for name, field in Flags.model_fields.items())


def _switch(name: str, value: str) -> bool:
    if value not in _TRUE + _FALSE:
        raise FlagError(f'invalid boolean value "{value}" for -{name}: parse error')
    return value in _TRUE


def _flag_value(name: str, value: str, default: object) -> str | int:
    if isinstance(default, int):
        if not value.isascii() or not value.isdigit() or not 0 < int(value) <= 1000:
            raise FlagError(f'invalid value "{value}" for flag -{name}: expected a number from 1 to 1000')
        return int(value)
    valid = _CHOICES.get(name)
    if valid is not None and value not in valid:
        raise FlagError(f'invalid value "{value}" for flag -{name}: expected one of {", ".join(valid[1:])}')
    if name == "zap-log-level" and value not in _LOG_LEVELS and not (value.isdigit() and int(value) > 0):
        raise FlagError(
            f'invalid value "{value}" for flag -{name}: expected {", ".join(_LOG_LEVELS[1:])} or a number above 0'
        )
    return value


_MARKDOWN = """\
# Configuration of the controller

<!-- Generated by `python -m seiops.controller.settings --markdown`; do not edit. -->

The controller takes its settings from three places: a config file, environment variables and flags. It checks all of
them at start, lists every problem it finds and exits with 1 (2 for a flag it does not know). `seiops controller
check-config FILE` does the same check anywhere, for example in a pull request.

## The config file

YAML (or JSON) in the file named by `SEI_CONTROLLER_CONFIG`, usually a ConfigMap mounted as a directory. Unknown keys
are ignored, keys may be written in any case, the last of several equal keys counts, and only the first document is
read. A number or boolean where text belongs is taken as its text; a list or map there is an error.

Everything but `stateSync` is read once, at start. A change needs a restart, which renders new Pod templates for the
whole fleet; Pods keep running on the old ones until they are replaced for another reason.

| Key | Required | Default | Checked as | Meaning |
|---|---|---|---|---|
{keys}

Defaults of `resources.<role>`:

| Role | cpuRequest | memory (request and limit) |
|---|---|---|
{resources}

### Syncers

`stateSync.syncers` names the light-client witnesses of each chain: lists of `host:port`, without scheme. It is the
trust root of state sync, so it is read anew on every pass, and only from this file.

- Nodes of a chain with fewer than two different syncers wait: `StateSyncReady` is False with `NoSyncersConfigured`.
- One item may hold several endpoints, separated by commas, blanks or line ends. Duplicates count once.
- An item that is not `host:port` (a number, a boolean, a URL, an empty text, a map) makes the list of that chain
  invalid: its nodes show `Unknown` with `SyncerSourceError` and the path of the item. So does a value that is no list.
  Nodes of other chains go on.
- A file that is not YAML, or has a wrong type in another section, says nothing reliable: every node that waits for
  syncers shows `SyncerSourceError`. A missing or empty file means that no chain has syncers.
- A running node is never stopped by any of this.
- At start, a bad item is a warning in the log; a value of the wrong type is refused, as everywhere in the file.

## Environment variables

| Variable | Default | Meaning |
|---|---|---|
{variables}

For EC2 peers the usual AWS variables and credentials apply.

Variables of earlier releases are not read. If the key that replaced one is missing, the error names both:

| Variable | Key |
|---|---|
{replaced}

## Flags

| Flag | Default | Meaning |
|---|---|---|
{flags}
"""


def markdown() -> str:
    """docs/configuration.md: keys, variables and flags with what they are for."""
    return _MARKDOWN.format(
        keys="\n".join(_key_rows()),
        resources="\n".join(f"| `{role}` | {cpu} | {memory} |" for role, (cpu, memory) in DEFAULTS.items()),
        variables="\n".join(_rows(Environment)),
        replaced="\n".join(f"| `{variable}` | `{key}` |" for variable, key in REPLACED_VARIABLES.items()),
        flags="\n".join(_rows(Flags)),
    )


def _key_rows() -> Iterator[str]:
    for key in appconfig.keys(AppConfig()):
        required = "yes" if key.rule.required else "no"
        default = f"`{key.rule.default}`" if key.rule.default else ""
        yield f"| `{key.path}` | {required} | {default} | {key.rule.kind.value} | {key.help} |"
    description = appconfig.StateSync.model_fields["syncers"].description
    yield f"| `stateSync.syncers.<chain>` | no | | list of host:port | {description} |"


def _rows(model: type[BaseModel]) -> Iterator[str]:
    prefix = "--" if model is Flags else ""
    for name, field in model.model_fields.items():
        default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        yield f"| `{prefix}{field.alias or name}` | {f'`{default}`' if default else ''} | {field.description} |"


if __name__ == "__main__":
    if sys.argv[1:] != ["--markdown"]:
        sys.exit("usage: python -m seiops.controller.settings --markdown")
    sys.stdout.write(markdown())
