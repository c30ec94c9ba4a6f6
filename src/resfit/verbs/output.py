"""Where words go: text for people to stderr, data to stdout."""

import sys
from typing import Any

from resfit import printing
from resfit.escaping import json_text
from resfit.verbs.options import Arguments


def show(a: Arguments, value: Any, text: str) -> None:
    """Print a result to stdout: one JSON object where --json asks for it, else the text."""
    print(json_text(value) if a.json else printing.lines_text(text))


def say(text: str) -> None:
    """Print to stderr."""
    print(printing.lines_text(text), file=sys.stderr)
