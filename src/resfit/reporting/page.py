"""`report`: run folders in, one HTML page out, that opens from disk and asks the network for nothing. No torch."""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

import resfit
from resfit import durable
from resfit.budget import duration_text
from resfit.curves import read_curves
from resfit.drawing import DARK, LIGHT, SERIES_LIGHT, short, svg_style, to_svg
from resfit.errors import UsageError
from resfit.reporting import figures, sections
from resfit.reporting.facts import Facts, Group, read_groups
from resfit.reporting.pictures import thumbnails

HERE = Path(__file__).parent
LIMIT = 2_000_000  # bytes of a page
PICTURES = 1_000_000  # of these, for thumbnails
DETAILED = 16  # runs that are shown in full at most


def report(
    runs: str | Path | Sequence[str | Path], out: str | Path | None = None, data: str | Path | None = None
) -> dict[str, Any]:
    """Write a report of one or several runs (or parents of seeds) as one HTML page, and return what it is.

    `out` ends in .html; without it the page of one run is RUN/report.html. `data` says where the images are now, for
    thumbnails of validation images; without them the page says so. The test split is never read: test accuracy is that of
    the receipt. What `resfit evaluate RUN --full` measures is shown where that was run.

    The result: `out`, `bytes`, `runs`, for each argument `run`, `name`, `seeds`, `split`, `accuracy`, `interval`, `n`; and
    `notes`, what the page had to leave out. Raises UsageError for what is no finished run or is named twice, ResourceError
    where `out` cannot be written; nothing is written then.
    """
    paths = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    target = _target(paths, out)
    groups = read_groups(paths)
    durable.require_writable(target.parent)
    rows = [sections.compare_row(group, number) for number, group in enumerate(groups)]
    shown = min(DETAILED, sum(len(group.runs) for group in groups))
    while True:
        views, notes = _views(groups, shown, data)
        page = render(groups, rows, views)
        if len(page) <= LIMIT or shown == 0:
            break
        shown //= 2
    durable.write_bytes(target, page)
    described = [_describe(row, group) for row, group in zip(rows, groups, strict=True)]
    return {"out": str(target), "bytes": len(page), "runs": described, "notes": notes}


def _target(paths: list[Path], out: str | Path | None) -> Path:
    if not paths:
        raise UsageError("report: no run given. Name a run folder, e.g. runs/NAME-1.")
    if out is None:
        if len(paths) > 1:
            raise UsageError("report: several runs have no one folder. Say where to write: -o report.html.")
        return paths[0] / "report.html"
    return html_file(out)


def html_file(out: str | Path) -> Path:
    """Return `out` as the file of a page; raises UsageError where it cannot be one."""
    target = Path(out)
    if target.is_dir():
        raise UsageError(f"{target}: is a folder. Name a file for -o.")
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{target}: is not .html. Give -o a name that ends in it.")
    return target


def _describe(row: dict[str, Any], group: Group) -> dict[str, Any]:
    split = next((split for split in ("test", "val") if row[split]), None)
    score = row[split] if split else {"accuracy": None, "interval": None, "n": None}
    kept = {key: score[key] for key in ("accuracy", "interval", "n")}
    return {
        "run": str(group.folder),
        "name": group.name,
        "seeds": len(group.runs) if group.seeds else None,
        "split": split,
    } | kept


def _views(groups: list[Group], shown: int, data: str | Path | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Return for each group what its part of the page shows, the first `shown` runs in full; and notes for people."""
    views, notes, left = [], [], shown
    total = max(1, min(shown, sum(len(group.runs) for group in groups)))
    for number, group in enumerate(groups):
        view: dict[str, Any] = {"group": group, "anchor": f"run-{number}", "runs": []}
        view["curves"] = sections.curve_figures(group) if left > 0 else []
        view["seeds"] = sections.seed_rows(group) if group.seeds and left > 0 else []
        for facts in group.runs[: max(0, left)]:
            found = _view(facts, PICTURES // total, data)
            view["runs"].append(found | {"anchor": f"{view['anchor']}-{len(view['runs'])}"})
            if found["no_pictures"]:
                notes.append(f"{facts.run.folder}: no thumbnails: {found['no_pictures']}")
        left -= len(group.runs)
        view["left_out"] = len(group.runs) - len(view["runs"])
        views.append(view)
    if left < 0:
        notes.append(
            f"{-left} of the runs are in the tables only, to keep the page small; report them alone to see more"
        )
    return views, notes


def _view(facts: Facts, room: int, data: str | Path | None) -> dict[str, Any]:
    value = sections.details(facts)
    asked = [row["row"] for row in [*(value.get("mistakes") or []), *(value.get("suspicious") or [])]]
    pictures, why = thumbnails(facts, asked, room, data)
    return value | {"facts": facts, "table": sections.facts_rows(facts), "pictures": pictures, "no_pictures": why}


def render(groups: list[Group], rows: list[dict[str, Any]], views: list[dict[str, Any]]) -> bytes:
    """Return the page, UTF-8."""
    several = len(groups) > 1
    split, charted = sections.charted(rows)
    return fill(
        "page.html",
        groups=groups,
        rows=rows,
        views=views,
        several=several,
        split=split,
        left_out=[row["name"] for row in rows if not row[split]],
        charts=[chart for key in ("params", "macs") if (chart := figures.pareto(charted, key, split))]
        if several
        else [],
        curves=_all_curves(groups) if several else [],
        same_val=len({facts.info["data"]["val"] for group in groups for facts in group.runs}) == 1,
    )


def fill(template: str, **values: Any) -> bytes:
    """Return a template of this folder filled in, with style and script, as UTF-8: a page that asks for nothing."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=cleaned,
    )
    numbers = iter(range(10**6))
    environment.filters |= {
        "name": name,
        "percent": lambda value: "–" if value is None else f"{value:.2%}",
        "interval": lambda pair: "–" if pair is None else f"{max(0.0, pair[0]):.2%} to {min(1.0, pair[1]):.2%}",
        "count": lambda value: "–" if value is None else f"{value:,}",
        "amount": figures.amount,
        "seconds": duration_text,
        "size": lambda value: f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB",
        "svg": lambda figure: Markup(to_svg(figure.drawing, str(next(numbers)), style=False)),
    }
    script = (HERE / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        **values,
        script=Markup(script),
        digest=digest,
        style=Markup(_style()),
        version=resfit.__version__,
    )
    return (page.strip() + "\n").encode()


def _all_curves(groups: list[Group]) -> list[figures.Figure]:
    """Return the curves of all groups in one drawing, where colours can tell them apart."""
    if len(groups) > len(SERIES_LIGHT):
        return []
    try:
        return figures.curves(read_curves([group.folder for group in groups]))
    except UsageError:  # one of them has no epoch
        return []


def _style() -> str:
    """Return the page's rules: the drawings' colours as variables, light and dark."""

    def colours(table: dict[str, str]) -> str:
        return ":root{" + ";".join(f"--{key}:{value}" for key, value in table.items()) + "}"

    sheet = (HERE / "style.css").read_text(encoding="utf-8")
    return f"{colours(LIGHT)}\n@media screen and (prefers-color-scheme:dark){{{colours(DARK)}}}\n{svg_style()}\n{sheet}"


def cleaned(value: Any) -> Any:
    """Return what the page may print: text without control characters, marks of direction and what no font has."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in value)


def name(text: str, most: int = 60) -> Markup:
    """Return a class's, run's or file's name for the page: cleaned, short, apart from the direction of writing around it.

    One that a spreadsheet would take for a formula, should the table be pasted there, has an apostrophe before it.
    """
    formula = re.match(r"[=@]|[+-](?!\d+(\.\d+)?$)", text.lstrip())
    return Markup("<bdi>{}</bdi>").format(escape(("'" if formula else "") + short(text, most)))
