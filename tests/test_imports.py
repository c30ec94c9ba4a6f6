"""The picture in docs/design.md: which package may import which, and what must not import torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import resfit

SOURCE = Path(resfit.__file__).parent

# A module, or a package's modules, and all it may import of resfit. Lower lines may not be imported by upper ones.
ALLOWED = {
    "errors": set(),
    "durable": {"errors"},
    "escaping": set(),
    "columns": set(),
    "machine": {"errors", ""},
    "models": {"errors", "models"},
    "budget": {"errors", "models"},
    "plugins": {"errors"},
    "recipe": {"errors", "models", "budget", "plugins"},
    "recipefile": {"errors", "models", "recipe"},
    "runs": {"errors", "durable", "recipe", "recipefile"},
    "data": {"errors", "escaping", "durable", "machine", "plugins", "budget", "data"},
}
ALLOWED["evaluation"] = {*ALLOWED, "evaluation"}
ALLOWED["training"] = {*ALLOWED, "training", ""}
ALLOWED["published"] = {*ALLOWED, "published"}
ALLOWED["estimator"] = {"errors", "recipe", "recipefile", "data", "evaluation", "training"}
ALLOWED["demo"] = {"escaping", "data", "evaluation", "training"}
ALLOWED["doctor"] = {"", "machine", "data", "evaluation"}
ALLOWED["bench"] = {"data", "evaluation", "machine", "models", "recipe", "recipefile", "training"}
ALLOWED["solver"] = {"errors", "machine", "models", "budget", "evaluation"}
ALLOWED["planner"] = {
    "errors",
    "machine",
    "models",
    "budget",
    "recipe",
    "recipefile",
    "runs",
    "data",
    "evaluation",
    "solver",
    "training",
}
ALLOWED["shipping"] = {*ALLOWED, "shipping", ""} - {
    "training",
    "published",
    "estimator",
    "demo",
    "doctor",
    "bench",
    "solver",
}
ALLOWED["study"] = {*ALLOWED, "charts", "drawing", "training", "published", "study"}
ALLOWED["reporting"] = {*ALLOWED, "reporting", "curves", "charts", "drawing", "printing", ""} - {"training", "study"}
ALLOWED["drawing"] = {"errors"}
ALLOWED["charts"] = {"drawing"}
ALLOWED["curves"] = {"errors", "durable", "runs", "charts", "drawing"}
ALLOWED["printing"] = {"escaping", "columns", "budget", "models"}
ALLOWED["findings"] = {"escaping", "printing"}
ALLOWED["verbs"] = set(ALLOWED)
ALLOWED["cli"] = {"errors", "escaping", "verbs", ""}
ALLOWED["__init__"] = set(ALLOWED)
ALLOWED["__main__"] = {"cli"}


def edges() -> set[tuple[str, str]]:
    found = set()
    for path in SOURCE.rglob("*.py"):
        here = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "resfit":
                names = [node.module] if node.module != "resfit" else [f"resfit.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.split(".")[0] == "resfit"]
            found |= {(here, [*name.split("."), ""][1]) for name in names}
    return found


def test_every_edge_is_in_the_picture():
    wrong = {(a, b) for a, b in edges() if b not in ALLOWED[a] and a != b}
    assert not wrong
    assert ("training", "evaluation") in edges()  # the walk finds something


def test_models_and_data_do_not_know_each_other():
    assert not {("models", "data"), ("data", "models")} & edges()


@pytest.mark.parametrize(
    "code",
    [
        "from resfit.cli import main; main(['cost', 'r5'])",
        "from resfit.cli import main; main(['list'])",
        "from resfit.cli import main; main(['claims'])",
        "from resfit.cli import main; main(['design', '--max-params', '50k', '--top', '1'])",
        "import resfit.study.space; resfit.study.space.load_space('small')",
        "import resfit.recipefile; resfit.recipefile.load_recipe('r4-lighter')",
        "from resfit.cli import main; main(['cost', 'r5', '--layers'])",
        "import resfit.cli, resfit.verbs, resfit.printing, resfit.curves",
        "import resfit.evaluation.comparison, resfit.evaluation.corruptions, resfit.data.duplicates",
        "import resfit.evaluation.calibration, resfit.evaluation.selective, resfit.evaluation.labels",
        "import resfit.shipping.server, resfit.shipping.app, resfit.shipping.connections",
        "import resfit.reporting.page, resfit.reporting.datapage, resfit.data.checking",
        "import resfit.evaluation.runtime, resfit.evaluation.answers, resfit.data.unlabelled",
        "import resfit.evaluation.card, resfit.shipping.hub",
        "import resfit.runs, resfit.budget, resfit.plugins, resfit.evaluation.metrics",
    ],
)
def test_no_torch(code):
    check = f"import sys; {code}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], stdout=subprocess.DEVNULL).returncode == 0


def test_public_names_import_and_none_is_a_module():
    for name in resfit.__all__:
        assert callable(getattr(resfit, name))
        assert not (SOURCE / name).exists()
        assert not (SOURCE / f"{name}.py").exists()
    with pytest.raises(AttributeError):
        _ = resfit.nothing
