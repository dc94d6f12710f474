"""The forms of the metrics; what the Go library negotiates for these headers was taken from it."""

import struct
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from seiops.sidecar import exposition

TEXT = "text/plain; version=0.0.4; charset=utf-8; escaping="
DELIMITED = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping="
ASKED = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT + "underscores"),
        ("*/*", TEXT + "underscores"),
        ("text/plain;version=1.0.0", TEXT + "underscores"),
        ("application/openmetrics-text;version=1.0.0", TEXT + "underscores"),
        ("application/openmetrics-text;escaping=allow-utf-8;q=0.6,text/plain;q=0.3", TEXT + "allow-utf-8"),
        ("text/plain;escaping=nope", TEXT + "underscores"),
        (ASKED, DELIMITED + "underscores"),
        (f"{ASKED};q=0.5,text/plain;q=0.6", TEXT + "underscores"),
        (f"{ASKED};q=0.7,text/plain;q=0.6", DELIMITED + "underscores"),
        (f"text/plain;q=x,{ASKED};q=0.1", DELIMITED + "underscores"),
        ("application/vnd.google.protobuf", TEXT + "underscores"),
        (";;,,a/b/c", TEXT + "underscores"),
    ],
)
def test_the_form_follows_the_accept_header(accept: str, content_type: str) -> None:
    assert exposition.choose(accept).content_type == content_type


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("br", False),
        ("", False),
    ],
)
def test_compression_is_asked_for(header: str, wanted: bool) -> None:
    assert exposition.wants_gzip(header) is wanted


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("done", "Things done.", ["kind"], registry=made).labels("é<x>").inc(3)
    Gauge("level", "A level.", registry=made).set(-1.5)
    seconds = Histogram("seconds", "Time.", ["kind"], buckets=(0.5, 5), registry=made).labels("a")
    for value in (0.25, 1.0, 7.0):
        seconds.observe(value)
    return made


def test_bounds_of_buckets_are_written_without_useless_digits() -> None:
    text = exposition.text(registry()).decode()
    assert [line for line in text.splitlines() if line.startswith("seconds_bucket")] == [
        'seconds_bucket{kind="a",le="0.5"} 1.0',
        'seconds_bucket{kind="a",le="5"} 2.0',
        'seconds_bucket{kind="a",le="+Inf"} 3.0',
    ]


def fields(message: bytes) -> list[tuple[int, Any]]:
    """The fields of a protobuf message: numbers, doubles, bytes."""
    found, rest = [], memoryview(message)

    def varint() -> int:
        nonlocal rest
        value = shift = 0
        while True:
            byte, rest = rest[0], rest[1:]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while rest:
        number, wire = divmod(varint(), 8)
        if wire == 0:
            found.append((number, varint()))
            continue
        size = 8 if wire == 1 else varint()
        content, rest = bytes(rest[:size]), rest[size:]
        found.append((number, struct.unpack("<d", content)[0] if wire == 1 else content))
    return found


def test_the_protobuf_form_holds_the_same_families() -> None:
    rest, families = exposition.delimited(registry()), []
    while rest:
        # all of these are shorter than 128 bytes
        families.append(fields(rest[1 : rest[0] + 1]))
        rest = rest[rest[0] + 1 :]
    counter, gauge, histogram = families
    assert counter[:3] == [(1, b"done_total"), (2, b"Things done."), (3, 0)]
    assert [fields(content) for number, content in fields(counter[3][1])] == [
        [(1, b"kind"), (2, "é<x>".encode())],
        [(1, 3.0)],
    ]
    assert gauge[:3] == [(1, b"level"), (2, b"A level."), (3, 1)]
    assert fields(fields(gauge[3][1])[0][1]) == [(1, -1.5)]
    assert histogram[:3] == [(1, b"seconds"), (2, b"Time."), (3, 4)]
    label, (number, content) = fields(histogram[3][1])
    assert (fields(label[1]), number) == ([(1, b"kind"), (2, b"a")], 7)
    assert fields(content)[:2] == [(1, 3), (2, 8.25)]
    buckets = [fields(bucket) for _, bucket in fields(content)[2:]]
    assert buckets == [[(1, 1), (2, 0.5)], [(1, 2), (2, 5.0)], [(1, 3), (2, float("inf"))]]
