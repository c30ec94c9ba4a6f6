"""`resfit serve` under wrk: 64 connections, one request in ten bad, a client beside it checks answers; prints one JSON object.

Usage: python benchmarks/serve_load.py RUN FOLDER [--seconds 30] [--repeats 5] [--short 5] [--out DIR]. RUN has a model.onnx,
FOLDER images, of which 200 are sent. First the long run, whose failures, wrong answers and memory are counted; then, in
alternation, `--repeats` short ones with good requests alone, of resfit and of the endpoint in serve_peer.py, whose medians
are compared. `memory_growth` is the median resident memory in the last fifth of the long run over that of the second fifth.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import resfit
from resfit.evaluation.runtime import load_onnx
from result import keep, show
from serve_abuse import same
from serve_process import ask, resident, run, serving

HERE = Path(__file__).parent
CONNECTIONS, BAD_EVERY, IMAGES = 64, 10, 200


def load(address: str, files: list[Path], seconds: float, every: int = 0) -> dict[str, Any]:
    """Return what wrk measured."""
    words = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(HERE / "serve_load.lua")]
    command = ["wrk", *words, address, "--", str(every), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("JSON ")]
    value: dict[str, Any] = json.loads(line[5:])
    return value


def check_under_load(address: str, pid: int, run: Path, files: list[Path], seconds: float) -> dict[str, Any]:
    """Load the server with one bad request in ten, check a client's answers and watch the memory meanwhile."""
    answers = resfit.predict([run], files, "cpu")
    expected = [
        {"label": answers.class_names[row.argmax()], "score": float(row.max())} for row in answers.probs
    ]  # by PyTorch
    end, wrong, right, memory = threading.Event(), [], [0], list[int]()

    def client() -> None:
        while not end.is_set():
            place = random.randrange(len(files))
            status, _, answer = ask(address, body=files[place].read_bytes())
            if status == 503:
                continue
            if status == 200 and same(answer["predictions"][0], expected[place]):
                right[0] += 1
            else:
                wrong.append(f"{files[place]}: {status}: {answer}"[:300])

    def watch() -> None:
        while not end.wait(seconds / 100):
            memory.append(resident(pid))

    threads = [threading.Thread(target=work) for work in (client, watch)]
    for thread in threads:
        thread.start()
    try:
        found = load(address, files, seconds, BAD_EVERY)
    finally:
        end.set()
        for thread in threads:
            thread.join()
    fifth = len(memory) // 5
    first, last = statistics.median(memory[fifth : 2 * fifth]), statistics.median(memory[-fifth:])
    more = {"checked": right[0] + len(wrong), "wrong": wrong[:5], "memory_mb": round(last / 2**20, 1)}
    return found | more | {"memory_growth": round(last / first - 1, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--short", type=float, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if load_onnx(options.run).tta != "none":
        parser.error(f"{options.run}: takes test-time views, and the bare endpoint one: the two would not do the same")
    files = [file for file in sorted(options.folder.rglob("*")) if file.suffix in (".jpg", ".jpeg", ".png")]
    files = random.Random(0).sample(files, min(IMAGES, len(files)))
    with serving(options.run) as (address, process):
        load(address, files, 2)
        under = check_under_load(address, process.pid, options.run, files, options.seconds)
    bundle = load_onnx(options.run)
    (model,) = [p for p in (options.run / "bundle" / "model.onnx", options.run / "model.onnx") if p.is_file()]
    peer = [sys.executable, str(HERE / "serve_peer.py"), str(model), str(bundle.rule.size), *bundle.class_names]
    ours, theirs = [], []
    for _ in range(options.repeats):
        with serving(options.run) as (address, _):
            load(address, files, 1)
            ours.append(load(address, files, options.short))
        with run(peer) as (address, _):
            load(address, files, 1)
            theirs.append(load(address, files, options.short))
        time.sleep(0.5)
    value = show(
        f"requests/s of resfit serve, {CONNECTIONS} connections of wrk, {bundle.config['name']}",
        [row["good"] / row["seconds"] for row in ours],
        1.0,
        data=f"{len(files)} files of {options.folder.name}",
        digits=1,
        goal_is="ratio at least",
        peer="a bare fastapi endpoint: Pillow, ONNX Runtime, one image a request",
        peer_values=[row["good"] / row["seconds"] for row in theirs],
        p99_ms=round(statistics.median(row["p99_ms"] for row in ours), 1),
        peer_p99_ms=round(statistics.median(row["p99_ms"] for row in theirs), 1),
        under_load=under,
    )
    keep(options.out, "serve_load", value)


if __name__ == "__main__":
    main()
