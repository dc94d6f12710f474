"""Every setting is checked before anything starts, and the known words come out (docs/contracts/sidecar.md 1.2)."""

from pathlib import Path

import pytest

from seiops.sidecar.settings import REQUIRED, SettingsError, load

GOOD = {
    "SEI_CHAIN_ID": "c-1",
    "SEI_GENESIS_BUCKET": "g",
    "SEI_GENESIS_REGION": "r",
    "SEI_SNAPSHOT_BUCKET": "s",
    "SEI_SNAPSHOT_REGION": "r",
}


def settings(**changed):
    return load({**GOOD, **changed}, home=None, port=None)


@pytest.mark.parametrize("name", REQUIRED)
def test_the_first_missing_variable_is_named(name):
    environment = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(SettingsError, match=f"^required environment variable {name} is not set$"):
        load(environment, home=None, port=None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"SEI_SNAPSHOT_UPLOAD_INTERVAL": "7d"},
         'invalid SEI_SNAPSHOT_UPLOAD_INTERVAL "7d": time: unknown unit "d" in duration "7d"'),
        ({"SEI_SNAPSHOT_UPLOAD_TIMEOUT": "x"}, 'invalid SEI_SNAPSHOT_UPLOAD_TIMEOUT "x": time: invalid duration "x"'),
        ({"SEI_KEYRING_BACKEND": "kwallet"}, 'unsupported SEI_KEYRING_BACKEND "kwallet" (allowed: test|file|os)'),
        ({"SEI_KEYRING_BACKEND": "file"}, "SEI_KEYRING_PASSPHRASE required when SEI_KEYRING_BACKEND=file"),
        ({"SEI_SIDECAR_AUTHN_MODE": " Trusted_Header "},
         'SEI_SIDECAR_AUTHN_MODE="trusted_header" is not recognized (allowed: "", "unauthenticated", "trusted-header")'),
        ({"SEI_SIDECAR_PORT": "abc"}, "server error: listen tcp: lookup tcp/abc: unknown port"),
        ({"SEI_SIDECAR_PORT": "70000"}, "server error: listen tcp: address 70000: invalid port"),
        ({"SEI_SIDECAR_PORT": "-1"}, "server error: listen tcp: address -1: invalid port"),
        ({"SEI_SIDECAR_PORT": "9" * 5000}, f"server error: listen tcp: address {'9' * 5000}: invalid port"),
        ({"SEI_SIDECAR_PORT": "a:b"}, "server error: listen tcp: address :a:b: too many colons in address"),
        ({"SEI_SIDECAR_PORT": "1e4"}, "server error: listen tcp: lookup tcp/1e4: unknown port"),
        ({"SEI_SIDECAR_MAX_BODY_BYTES": "-1"}, 'invalid SEI_SIDECAR_MAX_BODY_BYTES "-1": use a whole number above zero'),
        ({"SEI_SIDECAR_DIGEST_ENGINE": "x"}, 'invalid SEI_SIDECAR_DIGEST_ENGINE "x": use one of seidb, native, both'),
        ({"SEI_SIDECAR_REQUIRE_DISTINCT_WITNESSES": "2"},
         'invalid SEI_SIDECAR_REQUIRE_DISTINCT_WITNESSES "2": use true or false'),
        ({"SEI_SIDECAR_CONFIG_PROFILE": "v9"}, 'invalid SEI_SIDECAR_CONFIG_PROFILE "v9": use one of v0.0.21, v0.0.25'),
    ],
)  # fmt: skip
def test_unusable_values_are_named(changed, message):
    with pytest.raises(SettingsError) as caught:
        settings(**changed)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("raw", "mode"),
    [("", ""), ("  ", ""), ("unauthenticated", ""), (" UNAUTHENTICATED ", ""), ("Trusted-Header", "trusted-header")],
)
def test_auth_modes_are_normalised(raw, mode):
    assert settings(SEI_SIDECAR_AUTHN_MODE=raw).authn_mode == mode


def test_set_but_empty_is_unset():
    chosen = settings(SEI_HOME="", SEI_SIDECAR_PORT="", HOSTNAME="")
    assert (chosen.home, chosen.port) == (Path("/sei"), 7777)
    assert chosen.pod_name


def test_the_home_is_trimmed_and_cleaned():
    assert settings(SEI_HOME="  /a/./b/../c ").home == Path("/a/c")


def test_a_flag_beats_its_variable():
    chosen = load({**GOOD, "SEI_HOME": "/x", "SEI_SIDECAR_PORT": "1"}, home="/y", port="2")
    assert (chosen.home, chosen.port) == (Path("/y"), 2)


@pytest.mark.parametrize("raw", ["-1h", "0s"])
def test_durations_that_are_not_positive_take_the_default(raw):
    assert settings(SEI_SNAPSHOT_UPLOAD_INTERVAL=raw).upload_interval == 7 * 86_400


@pytest.mark.parametrize("changed", [{}, {"SEI_CHAIN_ID": ""}, {"SEI_KEYRING_BACKEND": "kwallet"}])
def test_the_passphrase_leaves_the_environment_on_every_path(changed):
    environment = {**GOOD, **changed, "SEI_KEYRING_PASSPHRASE": "hunter2"}
    try:
        chosen = load(environment, home=None, port=None)
    except SettingsError as error:
        assert "hunter2" not in str(error)
    else:
        assert "hunter2" not in repr(chosen)
    assert "SEI_KEYRING_PASSPHRASE" not in environment
