"""The verbs, a module a group: each adds its options, and `do_<verb>` calls one library function and prints."""

from resfit.verbs import inspecting, judging, networks, predicting, shipping, training
from resfit.verbs.options import Add


def add_verbs(verb: Add) -> None:
    """Add every verb with its options, in the order of `resfit --help`."""
    for group in (networks, training, judging, predicting, shipping, inspecting):
        group.add(verb)
