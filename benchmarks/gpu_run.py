"""Run benchmarks/gpu_queue.toml from the top for as long as there is time; records land under OUT by the library's function.

    python benchmarks/gpu_run.py --data .carry/data --out $OUT --minutes 9.5 [--only RECIPE_OR_NAME] [--set KEY=VALUE]

Each entry is trained by `resfit train` in a process of its own and tested once; an entry with `script` is a benchmark, whose
objects go to OUT, one to each of `files`, kept when it ends well within the time. At the end of the time the running one is
asked to stop (SIGTERM) and leaves a checkpoint in --runs; the next call on the same machine goes on from it. What a record in
results/ holds already is passed over. `--set` shortens every recipe, `--more` adds to the arguments of a script, to try them
on a CPU: `--set train.epochs=1 --set schedule.warmup_epochs=0`, and `--only` one of them.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from resfit.published import add_result
from resfit.published.record import read_result, result_file

ROOT = Path(__file__).resolve().parents[1]
MARGIN = 20.0  # seconds for the last step, its checkpoint and the copying

Entry = dict[str, Any]


def main() -> None:
    a = arguments()
    started, rows = time.monotonic(), []
    shutil.copytree(ROOT / "results" / "reproduce", a.out / "reproduce", dirs_exist_ok=True)
    for entry in read_queue(ROOT / "benchmarks" / "gpu_queue.toml"):
        left = 60 * a.minutes - MARGIN - (time.monotonic() - started)
        if "script" in entry:
            if a.only in (None, entry["files"][0]) and not is_done(a.out, entry) and left >= 60 * entry["minutes"]:
                rows.append(run_script(entry, a, left))
                print(" ".join(rows[-1]), flush=True)
            continue
        entry["settings"] = [*entry.get("settings", []), *a.set]
        folder = a.runs / f"{record(a.out, entry).stem}-seed-{entry['seed']}"
        if a.only not in (None, entry["recipe"]) or is_done(a.out, entry):
            continue
        if left < 60 * entry["minutes"] and not (entry.get("commands", 1) > 1 or folder.exists()):
            continue  # a shorter one further down may still fit
        if left < 30:
            break
        rows.append(run(entry, folder, a, left))
        print(" ".join(rows[-1]), flush=True)
    print("\n".join(["", "entry | seconds | images/s | val | test", *(" | ".join(row) for row in rows)]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--runs", type=Path, default=Path("/tmp/resfit-runs"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--more", action="append", default=[])
    return parser.parse_args()


def read_queue(path: Path) -> list[Entry]:
    """Return the queue's entries, one a seed, those of `seeds = [0, 1, 2]` spread out in order."""
    entries = tomllib.loads(path.read_text())["entry"]
    return [{**entry, "seed": seed} for entry in entries for seed in entry.get("seeds", [0])]


def record(out: Path, entry: Entry) -> Path:
    """Return where the entry's record lies."""
    return result_file(out, entry["recipe"], entry["settings"], entry.get("refit", False))


def is_done(out: Path, entry: Entry) -> bool:
    if "script" in entry:
        return any((folder / str(entry["files"][0])).exists() for folder in (out, ROOT / "results"))
    file = record(out, entry)
    return file.exists() and entry["seed"] in [row["seed"] for row in read_result(file)["runs"]]


def run_script(entry: Entry, a: argparse.Namespace, left: float) -> list[str]:
    """Run a benchmark, its JSON objects into OUT; return its row of the table."""
    words = [sys.executable, str(ROOT / entry["script"]), a.data, *entry["arguments"], "--device", a.device, *a.more]
    begun, output = time.monotonic(), ""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=left)
        output, how = done.stdout, f"exit {done.returncode}" if done.returncode else "done"
    except subprocess.TimeoutExpired:
        how = "stopped, out of time"
    if how == "done":
        for name, value in zip(entry["files"], objects(output), strict=True):
            (a.out / name).write_text(json.dumps(value, indent=2) + "\n")
    print(output, flush=True)
    return [entry["files"][0], f"{time.monotonic() - begun:.0f}", "-", how, "-"]


def objects(text: str) -> list[Any]:
    """Return the JSON objects that stand one after the other in a text."""
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found


def run(entry: Entry, folder: Path, a: argparse.Namespace, left: float) -> list[str]:
    """Train, test and record one entry; return its row of the table."""
    name = f"{folder.name}"
    words = [sys.executable, "-m", "resfit"]
    train = [*words, "train", entry["recipe"], "--data", a.data, "--out", str(folder), "--seed", str(entry["seed"])]
    train += ["--device", a.device, *(f"--set={setting}" for setting in entry["settings"])]
    train += ["--refit"] if entry.get("refit", False) else []
    begun = (folder / "run.json").exists()
    process = subprocess.Popen([*words, "resume", str(folder)] if begun else train)
    try:
        code = process.wait(left)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(MARGIN)
        except subprocess.TimeoutExpired:
            process.kill()
        return [name, f"{left:.0f}", "-", "stopped, with a checkpoint", "-"]
    if code:
        return [name, "-", "-", f"exit {code}", "-"]
    subprocess.run([*words, "test", str(folder), "--device", a.device], check=True, stdout=subprocess.DEVNULL)
    add_result(a.out, folder, entry["recipe"], entry["settings"])
    if entry.get("ship", False):
        ship(folder, a.out / "weights" / f"{name}.safetensors")
    summary, receipt = (json.loads((folder / file).read_text()) for file in ("summary.json", "test.json"))
    val = f"{summary['val']['accuracy']:.4f}" if summary["val"] else "-"
    seconds, rate = f"{summary['train_seconds']:.0f}", f"{summary['images_per_second']:.0f}"
    return [name, seconds, rate, val, f"{receipt['accuracy']:.4f}"]


def ship(folder: Path, path: Path) -> None:
    """Write the chosen weights as float16, half the size of the bundle's."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "bundle" / "model.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half() if value.is_floating_point() else value for key, value in weights.items()}, path)


if __name__ == "__main__":
    main()
