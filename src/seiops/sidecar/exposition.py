"""How the metrics are written for who asks: as text, or as length-delimited protobuf for scrapers that prefer it.

The choice follows the `Accept` header by the rules scrapers know from Go programs; OpenMetrics is not among the offers
(docs/contracts/sidecar.md 4).
"""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.samples import Sample

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_FAMILY = "io.prometheus.client.MetricFamily"
_PROTOBUF = f"application/vnd.google.protobuf; proto={_FAMILY}; encoding=delimited"
_ESCAPINGS = ("allow-utf-8", "underscores", "dots", "values")
_WHOLE_BOUND = re.compile(rb'le="(\d+)\.0"')
_KINDS = {"counter": 0, "gauge": 1, "unknown": 3, "histogram": 4}


@dataclass(frozen=True, slots=True)
class Form:
    """A content type and what writes a registry in it."""

    content_type: str
    write: Callable[[CollectorRegistry], bytes]


@dataclass(slots=True)
class _Offer:
    """One part of an `Accept` header."""

    kind: str
    parameters: dict[str, str] = field(default_factory=dict)
    quality: float = 1.0


def choose(accept: str) -> Form:
    """The form for an `Accept` header; text where nothing fits."""
    escaping = "underscores"
    for offer in sorted(_offers(accept), key=lambda one: (-one.quality, one.kind.count("*"))):
        if offer.parameters.get("escaping") in _ESCAPINGS:
            escaping = offer.parameters["escaping"]
        asked = offer.parameters
        if offer.kind == "application/vnd.google.protobuf" and asked.get("proto") == _FAMILY:
            if asked.get("encoding") == "delimited":
                return Form(f"{_PROTOBUF}; escaping={escaping}", delimited)
        elif offer.kind == "text/plain" and asked.get("version", "") in ("", "0.0.4"):
            break
    return Form(f"{_TEXT}; escaping={escaping}", text)


def text(registry: CollectorRegistry) -> bytes:
    """The text form. Bounds of buckets are labels, and dashboards know `le="5"`, not `le="5.0"`."""
    return _WHOLE_BOUND.sub(rb'le="\1"', generate_latest(registry))


def wants_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.split(","):
        name, _, parameters = part.partition(";")
        if name.strip() == "gzip":
            return "q=" not in parameters or _quality(parameters) > 0
    return False


def compress(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=5)


def _offers(accept: str) -> Iterator[_Offer]:
    for part in accept.split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        if kind.count("/") > 1 or ("/" not in kind and kind != "*"):
            continue
        offer = _Offer(kind)
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                offer.quality = _quality(parameter)
            else:
                offer.parameters[name.strip()] = value.strip()
        yield offer


def _quality(parameter: str) -> float:
    try:
        return float(parameter.partition("=")[2])
    except ValueError:
        return 0.0


# --- protobuf: tags are (field number << 3 | wire type) of prometheus/client_model's metrics.proto -------------------


def delimited(registry: CollectorRegistry) -> bytes:
    """Every family as a MetricFamily message, its length in front, in the order of names."""
    families = (_family(metric) for metric in registry.collect())
    return b"".join(_varint(len(message)) + message for _, message in sorted(families))


def _family(metric: Metric) -> tuple[str, bytes]:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    head = _bytes(1, name.encode()) + _bytes(2, metric.documentation.encode())
    kind = metric.type if metric.type in _KINDS else "unknown"
    head += _tag(3, 0) + _varint(_KINDS[kind])
    members = _histograms(metric) if kind == "histogram" else _values(kind, metric.samples)
    return name, head + b"".join(_bytes(4, member) for member in members)


def _values(kind: str, samples: Iterable[Sample]) -> Iterator[bytes]:
    number = {"gauge": 2, "counter": 3, "unknown": 5}[kind]
    for sample in samples:
        yield _labels(sample.labels) + _bytes(number, _double(1, sample.value))


def _histograms(metric: Metric) -> Iterator[bytes]:
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in metric.samples:
        key = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        series.setdefault(key, []).append(sample)
    for key, samples in series.items():
        count, total, buckets = 0, 0.0, b""
        for sample in samples:
            if sample.name.endswith("_bucket"):
                bucket = _tag(1, 0) + _varint(int(sample.value)) + _double(2, float(sample.labels["le"]))
                buckets += _bytes(3, bucket)
            elif sample.name.endswith("_count"):
                count = int(sample.value)
            elif sample.name.endswith("_sum"):
                total = sample.value
        yield _labels(dict(key)) + _bytes(7, _tag(1, 0) + _varint(count) + _double(2, total) + buckets)


def _labels(labels: dict[str, str]) -> bytes:
    return b"".join(
        _bytes(1, _bytes(1, name.encode()) + _bytes(2, value.encode())) for name, value in sorted(labels.items())
    )


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _bytes(number: int, content: bytes) -> bytes:
    return _tag(number, 2) + _varint(len(content)) + content


def _double(number: int, value: float) -> bytes:
    return _tag(number, 1) + struct.pack("<d", value)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
