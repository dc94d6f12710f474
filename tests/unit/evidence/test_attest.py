"""Attestations: signed, checked offline, checked by somebody else's rules, and refused by name when anything was changed."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from typer.testing import CliRunner

from seidev import softhsm
from seidev.processes import ToolError
from seiops.cli.main import app
from seiops.evidence.signing import SECRET
from support.published_run import BLOCKS, CHAIN, publish
from support.shadow_nodes import Node, receipt, results

KINDS: dict[str, Callable[[], Any]] = {
    "ed25519": Ed25519PrivateKey.generate,
    "ecdsa": lambda: generate_private_key(SECP256R1()),
}


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    return asyncio.run(publish(tmp_path / "home"))


def write_pair(folder: Path, kind: str = "ed25519", passphrase: str = "") -> tuple[Path, Path]:
    """Private and public key as PEM files."""
    key = KINDS[kind]()
    private, public = folder / f"{kind}.pem", folder / f"{kind}.pub.pem"
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def run(*words: object) -> tuple[int, str]:
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    assert outcome.exception is None or isinstance(outcome.exception, SystemExit), outcome.exception
    return outcome.exit_code, outcome.output


def attest(evidence: Path, key: object, out: Path, *options: str) -> None:
    status, output = run("attest", evidence, "--key", key, "--out", out, *options)
    assert status == 0, output


def check(*words: object) -> tuple[int, dict[str, Any]]:
    status, output = run("verify", *words, "--output", "json")
    return status, json.loads(output)


def names(found: dict[str, Any]) -> set[str]:
    told = found.get("named", []) + found.get("attestation", {}).get("findings", [])
    return {finding["name"] for finding in told}


def independently_verified(envelope: dict[str, Any], public: Path) -> bytes:
    """DSSE by its specification and nothing of ours: the payload, or cryptography's exception."""
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"]
    signed = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind.encode(), str(len(payload)).encode(), payload])
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    key = load_pem_public_key(public.read_bytes())
    if isinstance(key, Ed25519PublicKey):
        key.verify(signature, signed)
    else:
        assert isinstance(key, EllipticCurvePublicKey)
        key.verify(signature, signed, ECDSA(SHA256()))
    return payload


@pytest.mark.parametrize("kind", KINDS)
def test_an_attestation_holds_here_and_by_independent_rules(evidence: Path, tmp_path: Path, kind: str) -> None:
    private, public = write_pair(tmp_path, kind)
    out = tmp_path / "run.intoto.jsonl"
    attest(evidence, private, out)
    envelope = json.loads(out.read_bytes())
    statement = json.loads(independently_verified(envelope, public))
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    for subject in statement["subject"]:
        assert subject["digest"] == {"sha256": hashlib.sha256((evidence / subject["name"]).read_bytes()).hexdigest()}
    by_name = {subject["name"]: subject for subject in statement["subject"]}
    page = gzip.decompress((evidence / "1-100.compare.ndjson.gz").read_bytes())
    assert by_name["1-100.compare.ndjson.gz"]["annotations"]["seal"] == hashlib.sha256(page).hexdigest()
    said = statement["predicate"]
    assert (said["chain"], said["verdict"], said["heights"]) == (CHAIN, "clean", {"start": 1, "end": BLOCKS})
    head = said["runs"][0]["manifest"]
    assert head["sha256"] == hashlib.sha256((evidence / head["entry"]).read_bytes()).hexdigest()
    status, found = check("--attestation", out, "--key", public)
    assert (status, found["attestation"]["holds"], found["attestation"]["subjects"]) == (0, True, 3)
    status, found = check(evidence, "--attestation", out, "--key", public)
    assert (status, names(found)) == (0, set())
    status, output = run("verify", "--attestation", out, "--key", public)
    assert status == 0
    assert f"chain {CHAIN}, heights 1 to {BLOCKS}: clean" in output


def test_another_key_is_told_from_a_changed_payload(evidence: Path, tmp_path: Path) -> None:
    private, public = write_pair(tmp_path)
    _, other = write_pair(tmp_path, "ecdsa")
    out = tmp_path / "a.json"
    attest(evidence, private, out)
    status, found = check("--attestation", out, "--key", other)
    assert (status, names(found), found["attestation"]["predicate"]) == (2, {"wrong-key"}, None)
    envelope = json.loads(out.read_bytes())
    payload = base64.b64decode(envelope["payload"]).replace(b'"verdict":"clean"', b'"verdict":"CLEAN"')
    out.write_text(json.dumps(envelope | {"payload": base64.b64encode(payload).decode()}))
    status, found = check("--attestation", out, "--key", public)
    assert (status, names(found)) == (2, {"signature-invalid"})
    out.write_text(json.dumps(envelope | {"payloadType": "text/plain"}))
    assert names(check("--attestation", out, "--key", public)[1]) == {"signature-invalid"}


def signed(private: Path, payload: bytes, kind: str = "application/vnd.in-toto+json") -> str:
    """An envelope made by hand, without a key id, as other tools may make it."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(private.read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    signature = key.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload))
    return json.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.urlsafe_b64encode(signature).decode()}],
        }
    )


def test_what_is_signed_but_is_not_ours_has_a_name(tmp_path: Path) -> None:
    private, public = write_pair(tmp_path)
    subject = [{"name": "x", "digest": {"sha256": "0" * 64}}]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": "https://slsa.dev/provenance/v1",
    }
    ours = statement | {"predicateType": "urn:seiops:attestation:evidence:v1"}
    out = tmp_path / "a.json"
    for payload, kind, expected in (
        (statement, "application/vnd.in-toto+json", "predicate-unknown"),
        (ours | {"predicate": {"chain": 7}}, "application/vnd.in-toto+json", "statement-invalid"),
        (ours | {"subject": []}, "application/vnd.in-toto+json", "statement-invalid"),
        (ours | {"_type": "x"}, "application/vnd.in-toto+json", "statement-invalid"),
        ({"a": 1}, "application/vnd.in-toto+json", "statement-invalid"),
        (ours, "application/json", "payload-type-unknown"),
    ):
        out.write_text(signed(private, json.dumps(payload).encode(), kind))
        status, found = check("--attestation", out, "--key", public)
        assert (status, names(found)) == (2, {expected})


def test_changed_and_missing_objects_are_named(evidence: Path, tmp_path: Path) -> None:
    private, public = write_pair(tmp_path)
    out = tmp_path / "a.json"
    attest(evidence, private, out)
    page = evidence / "1-100.compare.ndjson.gz"
    kept = page.read_bytes()
    # the payload is the same, only its compression is another: the seals hold, the attestation does not
    page.write_bytes(gzip.compress(gzip.decompress(kept), 9))
    status, found = check(evidence, "--attestation", out, "--key", public)
    assert (status, names(found)) == (2, {"subject-differs", "size-differs"})
    page.write_bytes(kept)
    (evidence / "101-130.compare.ndjson.gz").rename(tmp_path / "gone")
    assert {"subject-missing", "object-missing"} <= names(check(evidence, "--attestation", out, "--key", public)[1])
    (tmp_path / "gone").rename(evidence / "101-130.compare.ndjson.gz")
    assert check(evidence, "--attestation", out, "--key", public)[0] == 0


def test_a_forged_manifest_that_holds_by_itself_is_seen(evidence: Path, tmp_path: Path) -> None:
    """Whoever may write the bucket can rewrite its last entries so that they agree: only the attestation tells."""
    private, public = write_pair(tmp_path)
    out = tmp_path / "a.json"
    attest(evidence, private, out)
    last = evidence / "manifest" / "run-1" / "00000004.json"
    last.write_bytes(last.read_bytes().replace(b'"reason":', b'"more":1,"reason":'))
    assert check(evidence)[0] == 0
    assert names(check(evidence, "--attestation", out, "--key", public)[1]) == {"subject-differs"}


def test_nothing_is_attested_that_does_not_hold(evidence: Path, tmp_path: Path) -> None:
    private, _ = write_pair(tmp_path)
    out = tmp_path / "a.json"
    (evidence / "1-100.compare.ndjson.gz").unlink()
    status, output = run("attest", evidence, "--key", private, "--out", out)
    assert status == 2
    assert "nothing was attested" in output
    assert not out.exists()
    assert run("attest", tmp_path / "nowhere", "--key", private, "--out", out)[0] == 1


def test_a_divergence_is_attested_only_when_taken_knowingly(tmp_path: Path) -> None:
    other = Node(latest=BLOCKS, identity="other")
    other.plant("block_results", 42, results(42, [receipt(42, 0, code=5), receipt(42, 1)]))
    evidence = asyncio.run(publish(tmp_path / "home", canonical=other))
    private, public = write_pair(tmp_path)
    out = tmp_path / "a.json"
    assert run("attest", evidence, "--key", private, "--out", out)[0] == 2
    attest(evidence, private, out, "--accept", "diverged")
    said = check("--attestation", out, "--key", public)[1]["attestation"]["predicate"]
    assert (said["verdict"], said["accepted"], said["counts"]) == (
        "diverged",
        ["diverged"],
        {"clean": 129, "diverged": 1},
    )


def test_the_chain_has_to_be_known(tmp_path: Path) -> None:
    evidence = asyncio.run(publish(tmp_path / "home", chain=""))
    private, public = write_pair(tmp_path)
    out = tmp_path / "a.json"
    status, output = run("attest", evidence, "--key", private, "--out", out)
    assert (status, "give it with --chain" in output) == (1, True)
    attest(evidence, private, out, "--chain", "pacific-1")
    assert check("--attestation", out, "--key", public)[1]["attestation"]["predicate"]["chain"] == "pacific-1"
    named = asyncio.run(publish(tmp_path / "other"))
    status, output = run("attest", named, "--key", private, "--out", out, "--chain", "pacific-1")
    assert (status, "several chains: pacific-1, test-1" in output) == (1, True)


def test_an_encrypted_key_needs_its_passphrase(evidence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = write_pair(tmp_path, "ecdsa", "correct horse")
    out = tmp_path / "a.json"
    for value, text in (
        ("", f"put its passphrase into {SECRET}"),
        ("wrong", f"the passphrase in {SECRET} is not its own"),
    ):
        monkeypatch.setenv(SECRET, value)
        status, output = run("attest", evidence, "--key", private, "--out", out)
        assert (status, text in output) == (1, True), output
    monkeypatch.setenv("MY_SECRET", "correct horse")
    attest(evidence, private, out, "--secret-env", "MY_SECRET")
    assert check("--attestation", out, "--key", public)[0] == 0


def test_bad_input_is_named(evidence: Path, tmp_path: Path) -> None:
    private, public = write_pair(tmp_path)
    rsa = tmp_path / "rsa.pem"
    rsa.write_bytes(generate_rsa(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    noise = tmp_path / "noise"
    noise.write_text("{}")
    signed_by_us = tmp_path / "signed"
    attest(evidence, private, signed_by_us)
    one = evidence / "1-100.compare.ndjson.gz"
    for words, text in (
        (("attest", evidence, "--key", tmp_path / "none.pem"), "none.pem: No such file"),
        (("attest", evidence, "--key", public), "not a private key in PEM form"),
        (("attest", evidence, "--key", rsa), "use an Ed25519 or an ECDSA P-256 key"),
        (("attest", evidence, "--key", private, "--accept", "all"), "--accept all: use one of"),
        (("attest", one, "--key", private), "give its prefix"),
        (("verify", one, "--attestation", signed_by_us, "--key", public), "give the prefix that the attestation"),
        (("verify",), "nothing to check"),
        (("verify", evidence, "--key", public), "--key goes with --attestation"),
        (("verify", "--attestation", noise), "--attestation needs --key"),
        (("verify", "--attestation", noise, "--key", public), "not a DSSE envelope: payloadType is missing"),
        (("verify", "--attestation", noise, "--key", private), "not a public key in PEM form"),
        (("verify", "--attestation", tmp_path / "none", "--key", public), "No such file"),
    ):
        status, output = run(*words)
        assert (status, text in output) == (1, True), output


# --- a token --------------------------------------------------------------------------------------------------------


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> softhsm.Token:
    """A real PKCS#11 token with an ECDSA P-256 key of id 2."""
    try:
        made = softhsm.token(tmp_path / "hsm")
    except ToolError as error:
        pytest.skip(str(error))
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    private, _ = write_pair(tmp_path, "ecdsa")
    softhsm.keep(made, private, 2)
    monkeypatch.setenv(SECRET, made.pin)
    return made


def test_a_token_signs(evidence: Path, tmp_path: Path, token: softhsm.Token, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.json"
    attest(evidence, f"hsm:2?label={token.label}", out)
    public = tmp_path / "ecdsa.pub.pem"
    independently_verified(json.loads(out.read_bytes()), public)
    assert check(evidence, "--attestation", out, "--key", public)[0] == 0
    for place, text in (
        ("hsm:3", "could not find ECDSA"),
        ("hsm:2?label=other", "No PKCS#11 token found for label other"),
        ("hsm:two", "write hsm:2?label=TOKEN"),
    ):
        status, output = run("attest", evidence, "--key", place, "--out", out)
        assert (status, text in output) == (1, True), output
    monkeypatch.delenv(SECRET)
    status, output = run("attest", evidence, "--key", "hsm:2", "--out", out)
    assert (status, f"put it into {SECRET}" in output) == (1, True)


def test_a_missing_client_says_what_to_install(evidence: Path) -> None:
    status, output = run("attest", evidence, "--key", "awskms:alias/x")
    assert status == 1
    assert "pip install 'seiops[awskms]'" in output
