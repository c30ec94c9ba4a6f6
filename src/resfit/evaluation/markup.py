"""Text of others inside a text of ours: class names and the like in Markdown and YAML, where none of it has a meaning."""

import string
from typing import Any

from resfit.escaping import visible

LONGEST = 80  # characters that are shown of a name
MEANING = frozenset(string.punctuation) - frozenset("-,;()'+=%")  # what Markdown might take for more than itself


def markdown(text: object) -> str:
    """Return text as one line of plain words in Markdown, in a table's cell too: what might mean more behind a backslash."""
    shown = visible(str(text))
    shown = shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
    return "".join("\\" + c if c in MEANING else c for c in shown)


def fenced(text: str, language: str = "") -> str:
    """Return text as a code block, whose fence is longer than any run of backticks inside."""
    shown = "\n".join(map(visible, text.strip("\n").split("\n")))
    fence = "```"
    while fence in shown:
        fence += "`"
    return f"{fence}{language}\n{shown}\n{fence}"


def yaml(value: dict[str, Any] | list[Any]) -> str:
    """Return dictionaries, lists, strings and numbers as YAML that every reader takes alike; strings are quoted, in ASCII."""
    return "".join(line + "\n" for line in _lines(value))


def _lines(value: dict[str, Any] | list[Any]) -> list[str]:
    lines: list[str] = []
    if isinstance(value, dict):
        for key, item in value.items():
            nested = isinstance(item, dict | list)
            lines += [f"{key}:", *("  " + line for line in _lines(item))] if nested else [f"{key}: {_scalar(item)}"]
        return lines
    for item in value:
        first, *rest = _lines(item) if isinstance(item, dict) else [_scalar(item)]
        lines += ["- " + first, *("  " + line for line in rest)]
    return lines


def _scalar(value: str | int | float) -> str:
    if isinstance(value, str):
        return '"' + "".join(map(_quoted, value)) + '"'
    return f"{value:.12f}" if "e" in str(value) else str(value)  # YAML 1.1 takes 1e-05 for a string


def _quoted(character: str) -> str:
    code = ord(character)
    if character in '"\\':
        return "\\" + character
    if 32 <= code < 127:
        return character
    return f"\\U{code:08X}" if not 0xD800 <= code < 0xE000 else "\\uFFFD"  # half a surrogate pair is no character
