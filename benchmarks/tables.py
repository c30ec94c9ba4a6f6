"""Write README's table and docs/defects.md's from results/; `--check` only says whether one is stale (exit 1)."""

import json
import sys
from pathlib import Path
from typing import Any

from defect_tables import defect_tables

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    made = pages()
    if "--check" in sys.argv:
        return int(any(not path.exists() or path.read_text() != text for path, text in made.items()))
    for path, text in made.items():
        path.write_text(text)
    return 0


def pages() -> dict[Path, str]:
    """Return every generated page with its text."""
    readme = ROOT / "README.md"
    return {readme: between(readme.read_text(), "results", table(ROOT / "results")), **defects_page()}


def defects_page() -> dict[Path, str]:
    """Return docs/defects.md with its tables from results/defects."""
    page = ROOT / "docs" / "defects.md"
    text = page.read_text()
    for name, content in defect_tables(ROOT / "results" / "defects").items():
        text = between(text, name, content)
    return {page: text}


def between(text: str, name: str, content: str) -> str:
    """Return the text with what stands between `<!-- name -->` and `<!-- /name -->` replaced."""
    before, begin, rest = text.partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    assert begin, f"no mark {name}"
    assert end, f"no end of mark {name}"
    return f"{before}{begin}\n{content}{end}{after}"


def table(folder: Path) -> str:
    """Return the markdown table of every result in a folder, by file name."""
    lines = ["| figure | measured | goal | beside | n (spread) | data, machine, commit |", "|---|---|---|---|---|---|"]
    for path in sorted(folder.glob("*.json")):
        value = json.loads(path.read_text())
        lines.append(f"| [{value['figure']}](results/{path.name}) | {' | '.join(cells(value))} |")
    return "\n".join(lines) + "\n"


def cells(value: dict[str, Any]) -> list[str]:
    measured = number(value["value"])
    if "train_seconds" in value:
        low, high = value["interval"]
        measured += f" (95% {low:.4f} to {high:.4f}) in {value['train_seconds'] / 60:.1f} min of training"
    beside = f"{value['peer']}: {number(value['peer_value'])}, ratio {value['ratio']}" if value.get("peer") else "–"
    spread = " to ".join(number(bound) for bound in value["spread"])
    where = f"{value['data']}; {value['device']}; {value.get('run_commit', value['commit'])}"
    return [measured, f"{value['goal_is']} {number(value['goal'])}", beside, f"{value['n']} ({spread})", where]


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


if __name__ == "__main__":
    sys.exit(main())
