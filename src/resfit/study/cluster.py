"""Trials on a cluster that runs Ray (Liaw et al. 2018, "Tune", arXiv 1807.05118).

Ray Tune says where and when a trial is trained; the study in its database, the engine that draws and the rules that survive
kills stay as they are. A trial of Ray's is a *turn*, in which one slot of the study is taken and finished.
"""

import logging
import os
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from resfit.errors import MissingExtraError
from resfit.machine import default_threads
from resfit.study.plan import STORAGE, Plan, read_plan
from resfit.study.trials import finished, holds
from resfit.study.worker import Images, fill_phase, is_over, phases
from resfit.training.runlog import say

try:
    import ray
    from ray import tune
except ImportError as error:
    raise MissingExtraError(f"search: {error.name} is needed. Install it: pip install 'resfit[cluster]'.") from error

QUIET = {"RAY_AIR_NEW_OUTPUT": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def drive(folder: Path, plan: Plan, workers: int) -> None:
    """Fill every phase of the study by turns, `workers` at once: each has its share of the cluster's GPUs, or of its cores.

    `folder` is absolute, and the same place on every node.
    """
    plan = replace(plan, parent=os.getppid())  # this process is no worker's parent here
    os.environ.update(QUIET)
    threads = max(1, default_threads() // workers)
    environment = {STORAGE: plan.storage, "OMP_NUM_THREADS": str(threads), **QUIET}
    ray.init(
        include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": environment}
    )
    try:
        total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        share = {"gpu": total["GPU"] / workers} if total.get("GPU") else {"cpu": max(1.0, total["CPU"] // workers)}
        say(f"Ray: {total.get('CPU', 0):g} cores, {total.get('GPU', 0):g} GPUs; each trial has {share}")
        images = Images(plan.data, plan.fingerprint)
        for index, phase in enumerate(phases(folder, 0, plan, images)):
            while not holds(done := finished(phase.study), phase.wanted) and not is_over(plan):
                wanted = phase.wanted if isinstance(phase.wanted, int) else len(phase.wanted)
                turns = max(
                    1, wanted - len(done.keys() & phase.wanted if isinstance(phase.wanted, frozenset) else done)
                )
                _turns(folder, index, turns, workers, share)
    finally:
        ray.shutdown()


def _turns(folder: Path, index: int, turns: int, workers: int, share: dict[str, float]) -> None:
    """Let Ray Tune take so many turns; one that fails is taken again, here or on another node."""
    tuner = tune.Tuner(
        tune.with_resources(partial(_turn, folder=str(folder), index=index), share),
        param_space={"turn": tune.grid_search(list(range(turns)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=workers),
        run_config=tune.RunConfig(
            name=f"phase-{index}",
            storage_path=str(folder / "ray"),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=3),
        ),
    )
    results = tuner.fit()
    if results.errors:
        raise results.errors[0]


def _turn(config: dict[str, Any], folder: str, index: int) -> None:
    """Take and finish one slot of a phase."""
    place = Path(folder)
    plan = read_plan(place, os.environ[STORAGE], os.getppid())
    images = Images(plan.data, plan.fingerprint)
    with closing(
        phases(place, config["turn"], plan, images)
    ) as found:  # a phase's study is open until the next is asked for
        phase = next(islice(found, index, None))
        fill_phase(phase, images, plan, most=1)
        tune.report({"slots": len(finished(phase.study))})
