"""What verbs share: the types of the parser's words, and options that several take."""

import argparse
from collections.abc import Callable

Arguments = argparse.Namespace
Verb = Callable[[Arguments], int]  # returns the exit code
Add = Callable[[str, Verb, str], argparse.ArgumentParser]  # name, what it does, its line of help


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default auto)")


def add_settings(parser: argparse.ArgumentParser, help: str) -> None:
    """Add --set."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help)


def add_moved_data(parser: argparse.ArgumentParser, for_what: str = "") -> None:
    """Add --data of a run that knows where its images were."""
    parser.add_argument("--data", metavar="PATH", help=f"where the images are now, if they moved{for_what}")
