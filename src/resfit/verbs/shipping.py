"""export, serve, push, pull: a trained network leaves."""

import json
from pathlib import Path
from typing import Any

from resfit import printing
from resfit.errors import UsageError
from resfit.escaping import json_text
from resfit.verbs.options import Add, Arguments, add_moved_data
from resfit.verbs.output import say, show


def add(verb: Add) -> None:
    """Add these verbs and their options."""
    p = verb("export", do_export, "Write a run's network as one file for other programs, once it answers the same.")
    p.add_argument("folder", metavar="RUN", help="a finished run, or a bundle folder with --data")
    p.add_argument("--format", default="onnx", metavar="onnx|pt2|safetensors", help="what to write (default onnx)")
    smaller = p.add_mutually_exclusive_group()
    smaller.add_argument("--int8", action="store_true", help="8-bit integers (onnx), a quarter of the bytes")
    smaller.add_argument("--float16", action="store_true", help="16-bit floats, half of the bytes")
    add_moved_data(p)
    p.add_argument("--out", metavar="DIR", type=Path, help="where to write (default RUN/export, and RUN/bundle)")

    p = verb("serve", do_serve, "Answer images over HTTP, with a page to drop them on, until Ctrl-C.")
    p.add_argument("folder", metavar="RUN|BUNDLE", help="an exported run, its bundle, or an exported .onnx file")
    p.add_argument(
        "--host", default="127.0.0.1", help="the address to listen at (default 127.0.0.1: this machine only)"
    )
    p.add_argument("--port", type=int, default=8000, metavar="N", help="the port (default 8000; 0: any free one)")
    p.add_argument("--max-bytes", metavar="SIZE", help="a request's most bytes (default 16.8M)")
    p.add_argument("--max-pixels", metavar="SIZE", help="its images' most pixels together (default 33.6M)")
    p.add_argument("--read-seconds", type=float, metavar="S", help="how long it may take to arrive (default 10)")

    p = verb("push", do_push, "Upload a bundle, with its model card, to the Hugging Face Hub.")
    p.add_argument("folder", metavar="RUN|BUNDLE", help="a finished run, or a bundle folder")
    p.add_argument("repo", metavar="OWNER/NAME", help="the repository; made where there is none, for you alone to see")
    p.add_argument("--public", action="store_true", help="make a new repository that all may see")
    p.add_argument(
        "--dataset", metavar="OWNER/NAME", help="the test set's place on the Hub, for the results in the card"
    )
    p.add_argument("--dry-run", action="store_true", help="say what would be uploaded, and send nothing")

    p = verb("pull", do_pull, "Download a bundle from the Hugging Face Hub, and check it.")
    p.add_argument("repo", metavar="REPO", help="OWNER/NAME, or OWNER/NAME@REVISION; hf:// may stand before it")
    p.add_argument("-o", "--out", metavar="DIR", type=Path, help="where to put it (default: ./NAME)")


def do_export(a: Arguments) -> int:
    """Export a run's network through its gate, and print what it is worth beside PyTorch."""
    from resfit.shipping.export import export

    value = export(a.folder, a.format, int8=a.int8, float16=a.float16, data=a.data, out=a.out)
    show(a, {"run": a.folder, **value}, printing.export_text(value))
    return 0


def do_serve(a: Arguments) -> int:
    """Serve a bundle until a signal comes; say where on stderr."""
    from resfit.budget import parse_size
    from resfit.shipping.server import serve

    sizes = {key: parse_size(text) for key in ("max_bytes", "max_pixels") if (text := getattr(a, key)) is not None}
    if a.read_seconds is not None and not 0 < a.read_seconds <= 3600:
        raise UsageError(f"--read-seconds: {a.read_seconds:g} is not between 0 and 3600.")

    def ready(address: str, facts: dict[str, Any]) -> None:
        if a.json:
            print(json.dumps({"address": address, "model": facts["name"], "classes": facts["classes"]}), flush=True)
        say(printing.serve_text(address, facts))

    serve(a.folder, a.host, a.port, **sizes, read_seconds=a.read_seconds, ready=ready)
    return 0


def do_push(a: Arguments) -> int:
    """Upload a bundle to the Hugging Face Hub; what goes is said before it does."""
    from resfit.shipping.hub import push

    def show(value: dict[str, Any]) -> None:
        say(printing.upload_text(value))

    value = push(a.folder, a.repo, public=a.public, dataset=a.dataset, dry_run=a.dry_run, show=show)
    if a.json:
        print(json_text(value))
    elif not a.dry_run:
        print(printing.pushed_text(value))
    return 0


def do_pull(a: Arguments) -> int:
    """Download a bundle from the Hugging Face Hub and print what it is."""
    from resfit.shipping.hub import pull

    value = pull(a.repo, a.out)
    show(a, value, printing.pulled_text(value))
    return 0
