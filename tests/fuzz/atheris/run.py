"""Coverage-guided fuzzing of the pure-Python parsers.

PYTHONPATH=src:tools:tests python tests/fuzz/atheris/run.py TARGET [libFuzzer arguments: CORPUS -max_total_time=60 ...]
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["seiops"]):
    import targets


def main() -> None:
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in targets.TARGETS:
        sys.exit(f"usage: run.py {'|'.join(targets.TARGETS)} [libFuzzer arguments]")
    with targets.trusted_checksums():
        atheris.Setup(sys.argv, targets.TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
