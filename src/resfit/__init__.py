"""resfit fits the most accurate residual image classifier into a budget.

The public functions import on first use, so that `import resfit` and the command line's help are quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from resfit.budget import Budget
    from resfit.curves import draw_curves
    from resfit.estimator import Classifier
    from resfit.evaluation.answers import predict
    from resfit.evaluation.bundle import load_bundle as load
    from resfit.evaluation.comparison import compare
    from resfit.evaluation.depth import evaluate_fully
    from resfit.evaluation.holdout import evaluate, test
    from resfit.models.families import build, cost
    from resfit.models.networks import network
    from resfit.models.spec import ModelSpec
    from resfit.planner import fit
    from resfit.published.reproduction import reproduce
    from resfit.recipe import Recipe
    from resfit.recipefile import load_recipe
    from resfit.reporting.page import report
    from resfit.shipping.export import export
    from resfit.shipping.hub import pull, push
    from resfit.shipping.server import serve
    from resfit.solver.exact import design
    from resfit.study.launch import search
    from resfit.training.launch import resume, train
    from resfit.training.seeds import train_seeds

_HOMES = {
    "Budget": "resfit.budget:Budget",
    "Classifier": "resfit.estimator:Classifier",
    "ModelSpec": "resfit.models.spec:ModelSpec",
    "Recipe": "resfit.recipe:Recipe",
    "build": "resfit.models.families:build",
    "compare": "resfit.evaluation.comparison:compare",
    "cost": "resfit.models.families:cost",
    "design": "resfit.solver.exact:design",
    "draw_curves": "resfit.curves:draw_curves",
    "evaluate": "resfit.evaluation.holdout:evaluate",
    "evaluate_fully": "resfit.evaluation.depth:evaluate_fully",
    "fit": "resfit.planner:fit",
    "export": "resfit.shipping.export:export",
    "serve": "resfit.shipping.server:serve",
    "load": "resfit.evaluation.bundle:load_bundle",
    "load_recipe": "resfit.recipefile:load_recipe",
    "network": "resfit.models.networks:network",
    "predict": "resfit.evaluation.answers:predict",
    "report": "resfit.reporting.page:report",
    "pull": "resfit.shipping.hub:pull",
    "push": "resfit.shipping.hub:push",
    "reproduce": "resfit.published.reproduction:reproduce",
    "resume": "resfit.training.launch:resume",
    "search": "resfit.study.launch:search",
    "test": "resfit.evaluation.holdout:test",
    "train": "resfit.training.launch:train",
    "train_seeds": "resfit.training.seeds:train_seeds",
}

__all__ = [
    "Budget",
    "Classifier",
    "ModelSpec",
    "Recipe",
    "build",
    "compare",
    "cost",
    "design",
    "draw_curves",
    "evaluate",
    "evaluate_fully",
    "export",
    "fit",
    "load",
    "load_recipe",
    "network",
    "predict",
    "pull",
    "push",
    "report",
    "reproduce",
    "resume",
    "search",
    "serve",
    "test",
    "train",
    "train_seeds",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'resfit' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
