"""Arguments of an environment's constructor as text: ``length=20 two_player=true``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

# Words that are no TOML but look as if they meant more than their letters.
NOT_TEXT = {"true", "false", "none", "null", "nan", "inf", "yes", "no", "on", "off"}


def parse_arguments(texts: Iterable[str]) -> dict[str, Any]:
    """The arguments of ``NAME=VALUE`` each. A VALUE is written as in TOML: a number, true, false,
    "text", [a list]; a plain word is text without its quotes.

    Raises ValueError, naming the argument.
    """
    return dict(map(_parse, texts))


def is_plain(value: Any) -> bool:
    """Numbers, text, true and false, and lists and tables of them: what TOML and JSON both have."""
    if isinstance(value, list):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_plain(item) for name, item in value.items())
    return type(value) in (int, float, str, bool)


def _parse(text: str) -> tuple[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"expected NAME=VALUE, such as length=20, got {text!r}")
    if re.fullmatch(r"[A-Za-z]\w*", value) and value.lower() not in NOT_TEXT:
        return name, value
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    if list(parsed) != ["value"] or not is_plain(parsed["value"]):
        raise ValueError(f"{name}: expected a value as in TOML (a number, true, false, "
                         f'"text" or [a list]), got {value!r}')
    return name, parsed["value"]
