"""One recipe with several seeds: `train_seeds`, a parent folder with a run for each."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from resfit import durable
from resfit.errors import UsageError
from resfit.evaluation.metrics import mean_interval
from resfit.machine import choose_device
from resfit.recipe import Recipe, recipe_to_toml
from resfit.recipefile import as_recipe
from resfit.runs import Run, new_run
from resfit.training.init import fix_init
from resfit.training.launch import absolute, check_place, load_data, resume, train
from resfit.training.loss import check_teacher
from resfit.training.resolve import resolve
from resfit.training.runlog import Interrupted, say


def train_seeds(
    recipe: str | Path | Recipe,
    data: str | Path,
    out: str | Path | None = None,
    *,
    seeds: int,
    refit: bool = False,
    device: str = "auto",
    settings: Sequence[str] = (),
) -> Run:
    """Train a recipe with seeds 0 .. seeds-1 under one parent folder; its summary has mean, deviation and interval.

    Called again with the same `out`, finished seeds are kept, interrupted ones resumed, missing ones trained.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("train: --seeds: many processes train one run at a time. Use --seed, once for each.")
    recipe = as_recipe(recipe, settings)
    check_place(data, out, device)
    train_set, _ = load_data(recipe, data, refit)  # what is wrong with it is said before a folder is made
    check_teacher(resolve(fix_init(recipe), train_set), train_set, choose_device(device))
    given = Path(out) if out else None
    parent = Run(given) if given and (given / "seeds.json").exists() else new_run(recipe.name, given)
    same = {"recipe": recipe_to_toml(recipe), "source": absolute(data), "refit": refit}
    record = parent.folder / "seeds.json"
    if record.exists() and json.loads(record.read_text()) != same:
        raise UsageError(f"{parent.folder}: holds seeds of another recipe, data or --refit. Choose another --out.")
    durable.write_json(record, same)
    summaries = []
    for seed in range(seeds):
        folder = parent.folder / f"seed-{seed}"
        say(f"seed {seed} (of 0 to {seeds - 1})")
        try:
            done = (folder / "run.json").exists()
            run = resume(folder) if done else train(recipe, data, folder, seed=seed, refit=refit, device=device)
        except Interrupted:
            say(f"the same command with --out {quote(str(parent.folder))} does this seed to its end, and the others")
            raise
        summaries.append(run.summary)
    accuracies = [summary["val"]["accuracy"] for summary in summaries if summary["val"]]
    value = {"name": recipe.name, "seeds": list(range(seeds)), "refit": refit}
    value |= {"val_accuracy": mean_interval(accuracies) if accuracies else None}
    durable.write_json(parent.summary_file, value)
    return parent
