"""Write README's table of results from results/*.json; `--check` only says whether it is stale (exit 1)."""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results -->", "<!-- /results -->"


def main() -> int:
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = f"{before}{BEGIN}\n{table(ROOT / 'results')}{END}{after}"
    if "--check" in sys.argv:
        return int(made != text)
    readme.write_text(made)
    return 0


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
