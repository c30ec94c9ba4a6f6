"""Reproduce a report's row: train its recipe with several seeds, test each once, add each to the record as it comes."""

from collections.abc import Sequence
from pathlib import Path

from resfit import durable
from resfit.errors import UsageError
from resfit.published.claims import find_row
from resfit.published.record import add_result, normal, recipe_digest, refuse_mixing, result_file
from resfit.recipefile import load_recipe


def reproduce(
    recipe: str,
    data: str | Path,
    *,
    seeds: int = 3,
    refit: bool = False,
    settings: Sequence[str] = (),
    out: str | Path | None = None,
    results: str | Path = "results",
    device: str = "auto",
) -> Path:
    """Train and test seeds 0 .. seeds-1 of a shipped recipe, a report's row above all, and return the file of its record.

    The record lies under `results`. Asked again, finished seeds are kept. Runs lie in `out` (default:
    runs/reproduce/<name of the record>). `settings` make it another study, whose name says so. Raises UsageError,
    DataError, GateError, ResourceError as `train` does.
    """
    from resfit.evaluation.holdout import test
    from resfit.machine import choose_device
    from resfit.training.launch import load_data
    from resfit.training.seeds import train_seeds

    if seeds < 1:
        raise UsageError("reproduce: --seeds: must be at least 1. Three give a verdict.")
    wanted = load_recipe(find_row(recipe), settings)
    file = result_file(Path(results), recipe, settings, refit)
    folder = Path("runs/reproduce") / file.stem if out is None else Path(out)
    common = {"settings": normal(settings), "epochs": wanted.train.epochs, "device_kind": choose_device(device).type}
    common["recipe_digest"] = recipe_digest(wanted)
    refuse_mixing(file, common)
    durable.require_writable(file.parent)
    fingerprint = load_data(wanted, data, refit)[0].fingerprint
    refuse_mixing(file, common | {"train_fingerprint": fingerprint})
    for seed in range(seeds):  # train_seeds keeps those before
        parent = train_seeds(recipe, data, folder, seeds=seed + 1, refit=refit, device=device, settings=settings)
        test(parent.folder / f"seed-{seed}", data, device)
        add_result(results, parent.folder / f"seed-{seed}", recipe, settings)
    return file
