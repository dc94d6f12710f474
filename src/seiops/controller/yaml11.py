"""YAML as the Go controller reads it.

The app-config file is shared with that controller, so both must see the same values in it: YAML 1.1 booleans
(`y`, `on`), numbers without sexagesimals (`10:30` is text, not 630) and without dates, the last of several equal
keys, the first of several documents (docs/contracts/controller-behaviour.md 1.5).
"""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_DEPTH = 100


class YamlError(ValueError):
    """Text that is not YAML; names the line, never quotes the content."""


def first_document(text: bytes) -> object:
    """First document of the text as plain Python values; None for an empty one. Raises YamlError."""
    loader: Any = _Loader(text)
    try:
        _check_nesting(text)
        return loader.get_data() if loader.check_data() else None
    except YamlError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark is not None else ""
        raise YamlError(f"yaml: {place}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise YamlError(f"yaml: {str(error).splitlines()[0]}") from None
    except (RecursionError, ValueError, OverflowError):
        raise YamlError("yaml: a value is nested too deeply or is a number out of range") from None
    finally:
        loader.dispose()


def _check_nesting(text: bytes) -> None:
    """Composing recurses in C, where too deep a document ends the process; the event stream does not."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentEndEvent):
            return
        if depth > MAX_DEPTH:
            raise YamlError(f"yaml: a value is nested deeper than {MAX_DEPTH} levels")


class _Loader(yaml.CSafeLoader):
    """A resolver of its own: the library's knows sexagesimals and dates."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Each key once after a merge: merges of merges would otherwise multiply their entries."""
        super().flatten_mapping(node)
        node.value = list({_identity(key): (key, value) for key, value in node.value}.values())


def _identity(key: yaml.Node) -> object:
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _boolean(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() in ("y", "yes", "true", "on")


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).replace("_", ""))


_Loader.yaml_implicit_resolvers = {}


def _resolve(tag: str, pattern: str, first: str) -> None:
    resolver: Any = _Loader.add_implicit_resolver
    resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first) or [""])


_resolve("bool", "y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO")
_resolve("int", "[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)", "-+0123456789")
_resolve("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+0123456789.")
_resolve("merge", "<<", "<")
_resolve("null", "~|null|Null|NULL", "~nN")
_resolve("null", "", "")
_Loader.add_constructor("tag:yaml.org,2002:bool", _boolean)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
