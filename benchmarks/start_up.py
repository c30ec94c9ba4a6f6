"""Wall time of `resfit --help` and `resfit cost r5` as a share of `python -c "import torch"`, in alternation; prints JSON.

Usage: python benchmarks/start_up.py [VERB ...]: the words after resfit, `--help`, `cost r5` or `design` (without: all).
"""

import subprocess
import sys
import time

from result import show

REPEATS = 9
GOAL = 0.2  # of the peer
SECONDS = {"design": 1.0}  # goals that are no share of it
CASES = (["--help"], ["cost", "r5"], ["design"])


def wall(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    case = sys.argv[1:]
    if not case:
        for words in CASES:
            subprocess.run([sys.executable, __file__, *words], check=True)
        return
    ours = [sys.executable, "-m", "resfit", *case]
    torch = [sys.executable, "-c", "import torch"]
    wall(ours), wall(torch)  # into the system's memory
    values, peer = [], []
    for _ in range(REPEATS):
        values.append(wall(ours))
        peer.append(wall(torch))
    show(
        f"seconds of `resfit {' '.join(case)}`",
        values,
        SECONDS.get(case[0], GOAL),
        digits=3,
        goal_is="value at most" if case[0] in SECONDS else "ratio at most",
        peer="import torch",
        peer_values=peer,
    )


if __name__ == "__main__":
    main()
