"""A PKCS#11 token in software (SoftHSM), found or installed from the distribution, for tests of signing with one.

The library comes from Debian's package `softhsm2`: it is looked for where distributions put it, and installed with apt
where that is possible. A token lives in a directory of its own and is gone with it.
"""

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from seidev.processes import ToolError

PACKAGE = "softhsm2"
PLACES = (
    "/usr/lib/softhsm",
    "/usr/lib64/softhsm",
    "/usr/lib64/pkcs11",
    "/usr/local/lib/softhsm",
    "/opt/homebrew/lib/softhsm",
)
LIBRARY = "libsofthsm2.so"
INSTALL_SECONDS = 300


@dataclass(frozen=True)
class Token:
    """An initialised token. `env` is what a program needs in its environment to find it."""

    label: str
    pin: str
    library: Path
    env: dict[str, str]


def library() -> Path:
    """Path of the PKCS#11 library, installed first if need be. Raises ToolError that says why it cannot be had."""
    found = _found()
    if found is None:
        _install()
        found = _found()
    if found is None:
        raise ToolError(f"the package {PACKAGE} is installed, but {LIBRARY} is in none of {', '.join(PLACES)}")
    return found


def token(directory: Path, label: str = "seiops") -> Token:
    """A fresh token in `directory`. Raises ToolError."""
    where = library()
    config = directory / "softhsm2.conf"
    (directory / "tokens").mkdir(parents=True)
    config.write_text(f"directories.tokendir = {directory / 'tokens'}\nlog.level = ERROR\n")
    env = {"SOFTHSM2_CONF": str(config), "PYKCS11LIB": str(where)}
    pin = secrets.token_hex(4)
    command = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        label,
        "--pin",
        pin,
        "--so-pin",
        secrets.token_hex(4),
    ]
    made = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True)
    if made.returncode != 0:
        raise ToolError(f"softhsm2-util made no token: {(made.stderr or made.stdout).strip()}")
    return Token(label, pin, where, env)


def _found() -> Path | None:
    if shutil.which("softhsm2-util") is None:
        return None
    return next((Path(place) / LIBRARY for place in PLACES if (Path(place) / LIBRARY).exists()), None)


def _install() -> None:
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise ToolError(f"SoftHSM is not installed, and only root can install it here: apt-get install {PACKAGE}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ([apt, "update", "-qq"], [apt, "install", "-y", "-qq", "--no-install-recommends", PACKAGE]):
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            raise ToolError(f"{' '.join(command)} did not end within {INSTALL_SECONDS} s") from None
        if done.returncode != 0:
            raise ToolError(f"{' '.join(command)}: {done.stderr.strip()[-400:]}")


def keep(token: Token, key: Path, number: int) -> None:
    """Puts an unencrypted PKCS#8 key into the token under an id. Raises ToolError."""
    command = ["softhsm2-util", "--import", str(key), "--token", token.label, "--label", key.stem]
    command += ["--id", f"{number:02x}", "--pin", token.pin]
    done = subprocess.run(command, env={**os.environ, **token.env}, capture_output=True, text=True)
    if done.returncode != 0:
        raise ToolError(f"softhsm2-util did not take {key}: {(done.stderr or done.stdout).strip()}")
