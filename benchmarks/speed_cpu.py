"""Train the `speed-cpu` recipe on cifar10-jpeg, test it once, and print accuracy, time and curve as JSON.

Usage: python benchmarks/speed_cpu.py DATA RUN. RUN is made, or taken as it is when it has finished already.
"""

import argparse
from pathlib import Path

import resfit
from resfit.runs import open_run
from result import show

GOAL = 0.85
GOAL_SECONDS = 30 * 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    if not (options.run / "run.json").exists():
        resfit.train("speed-cpu", options.data, options.run, device="cpu")
    run = open_run(options.run)
    receipt, summary = resfit.test(run.folder, options.data, "cpu"), run.summary
    show(
        "test accuracy of `speed-cpu` after its training on 2 CPU cores",
        [receipt["accuracy"]],
        GOAL,
        data="cifar10-jpeg",
        digits=4,
        interval=[round(bound, 4) for bound in receipt["interval"]],
        test_images=receipt["n"],
        val_accuracy=summary["val"]["accuracy"],
        train_seconds=round(summary["train_seconds"], 1),
        val_seconds=round(summary["val_seconds"], 1),
        goal_seconds=GOAL_SECONDS,
        train_images=summary["train_images"],
        weights=summary["weights"],
        tta_views=receipt["tta_views"],
        opening=receipt["opening"],
        params=summary["params"],
        macs=summary["macs"],
        run_commit=run.info["commit"],
        run_device=run.info["device"],
        versions=run.info["versions"],
        classes={name: row["accuracy"] for name, row in receipt["classes"].items()},
        curve=run.metrics,
    )


if __name__ == "__main__":
    main()
