"""data, bench, doctor: images and machine before training."""

from pathlib import Path

from resfit import printing
from resfit.errors import UsageError
from resfit.verbs.options import Add, Arguments, Verb, add_device
from resfit.verbs.output import say, show


def add(verb: Add) -> None:
    """Add these verbs and their options."""
    verb("data", do_data_info, "Look at images, check them, or decode them into the cache.")
    lines: dict[str, tuple[Verb, str]] = {
        "info": (do_data_info, "Show what is recognised: splits, classes, sizes, fingerprints, the cache."),
        "check": (do_data_check, "Read every image and show what is wrong; exit 4 where training would be."),
        "prepare": (do_data_prepare, "Decode all splits into the cache."),
    }
    for name, (run, text) in lines.items():
        p = verb(f"data {name}", run, text)
        p.add_argument(
            "source", metavar="PATH", help="a folder, archive, .csv, .parquet or .npz, or cifar10, cifar100, digits"
        )
        p.add_argument("--image-size", type=int, default=32, metavar="N", help="pixels of a side (default 32)")
        p.add_argument(
            "--resize",
            choices=("squash", "crop", "pad"),
            default="squash",
            help="how other shapes become a square (default squash)",
        )
        p.add_argument(
            "--group-by",
            metavar="REGEX",
            help="images whose ids have the same group of it stay together (data.group_by)",
        )
        if name == "check":
            p.add_argument("-o", "--out", "--page", metavar="FILE", type=Path, help="write a page, .html")
            p.add_argument(
                "--no-near",
                action="store_true",
                help="do not look for near-duplicates, which takes minutes from 60,000 images on",
            )

    p = verb("bench", do_bench, "Measure this machine, how much of it the networks use, and say what binds.")
    p.add_argument(
        "networks", nargs="*", metavar="NETWORK", help="networks or recipes (default r4-lighter r1-4 resnet-20)"
    )
    p.add_argument("--seconds", type=float, default=20, metavar="S", help="about how long to measure (default 20)")
    add_device(p)

    verb("doctor", do_doctor, "Print versions, devices, extras, writable folders and the data found.")


def do_bench(a: Arguments) -> int:
    """Measure the machine and the networks on it."""
    if a.seconds <= 0:
        raise UsageError("bench: --seconds: must be more than 0. See `resfit bench --help`.")
    from resfit.bench import run_bench

    value = run_bench(a.networks, a.device, a.seconds)
    show(a, value, printing.bench_text(value))
    return 0


def do_doctor(a: Arguments) -> int:
    """Print versions, devices, extras, folders and data."""
    from resfit.doctor import examine, to_text

    value = examine()
    show(a, value, to_text(value))
    return 0


def do_data_info(a: Arguments) -> int:
    """Print what is recognised of a data set."""
    from resfit.data.inspection import info

    value = info(a.source, a.image_size, resize=a.resize, group_by=a.group_by)
    show(a, value, printing.info_text(value))
    return 0


def do_data_check(a: Arguments) -> int:
    """Read every image of a data set and print what is wrong; 4 where training or its score would be."""
    from resfit.data.images import PixelRule

    rule = PixelRule(a.image_size, a.resize)
    if a.out is not None:
        from resfit.reporting.datapage import check_on_page

        value = check_on_page(a.source, a.out, rule, not a.no_near, a.group_by, say)
    else:
        from resfit.data.checking import check

        value = check(a.source, not a.no_near, a.group_by, say)
    show(a, value, printing.check_text(value))
    return 0 if value["ok"] else 4


def do_data_prepare(a: Arguments) -> int:
    """Decode a data set into the cache."""
    from resfit.data.inspection import prepare

    value = prepare(a.source, a.image_size, a.resize, a.group_by)
    show(a, value, printing.prepare_text(value))
    return 0
