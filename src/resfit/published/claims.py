"""Claims as data: one row a printed figure of the five reports, read from claims/*.toml and checked. No torch."""

import functools
import tomllib
from collections.abc import Sequence
from decimal import Decimal
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from resfit.errors import UsageError, nearest
from resfit.plugins import explain
from resfit.recipefile import recipe_names

SHIPPED = files("resfit") / "claims"
UNDETERMINED, CONTRADICTED = "undetermined", "contradicted by the report itself"
SCALES = {"": Decimal(1), "M": Decimal(10**6), "MB": Decimal(1), "%": Decimal("0.01")}

Metric = Literal["test_accuracy", "test_nll", "val_accuracy", "train_accuracy", "train_loss", "train_seconds"]
METRICS: dict[str, Metric] = {
    "test-accuracy": "test_accuracy",
    "val-accuracy": "val_accuracy",
    "train-accuracy": "train_accuracy",
    "train-loss": "train_loss",
    "test-loss": "test_nll",
    "milestone": "val_accuracy",
}
Kind = Literal[
    "params", "budget", "memory", "test-accuracy", "val-accuracy", "train-accuracy", "train-loss", "test-loss",
    "milestone", "comparison", "statement",
]  # fmt: skip


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Side(_Strict):
    """What is measured: a metric of a recipe with settings, at the run's end or (a curve's) after an epoch, from 1 on."""

    recipe: str
    settings: list[str] = []
    metric: Metric = "test_accuracy"
    epoch: int | Literal["last", "best"] | None = None


class Claim(_Strict):
    """One printed figure, or what is said without one.

    `value` is as printed, in `unit`, with its digits; `upto` ends a range. `sense`: the figure is met as it is, or it is
    a bound ("above", "below"); in a comparison, left is "above" right, or left is "no better" than right.
    `networks` are what the text may mean (default: the recipe's); `instead` is one that the figure fits.
    `depends` names a claim without whose network being known this one cannot be judged.
    """

    id: str
    recipe: str
    kind: Kind
    text: str
    value: str | None = None
    upto: str | None = None
    unit: Literal["", "%", "M", "MB"] = ""
    sense: Literal["equal", "above", "below", "no better"] | None = None
    mark: Literal["printed", "code", "inferred"] = "printed"
    needs: Literal["nothing", "cpu", "gpu"] | None = None
    note: str = ""
    networks: list[str] = []
    instead: str | None = None
    part: Literal["input", "activations", "params", "total"] | None = None
    epoch: int | Literal["last", "best"] | None = None
    left: Side | None = None
    right: Side | None = None
    by: str | None = None
    depends: str | None = None
    check: Literal["highest", "closer-is-better"] | None = None
    verdict: Literal["undetermined", "contradicted by the report itself"] | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Claim":
        """Refuse a row that its kind cannot judge, and fill in what follows from the kind."""
        wanted = {
            "memory": ["value", "part"],
            "milestone": ["value", "epoch"],
            "comparison": ["left", "right"],
            "statement": ["verdict"] if self.check is None else ["value"],
        }.get(self.kind, ["value"])
        for key in wanted:
            if getattr(self, key) is None:
                raise ValueError(f"{self.id}: a claim of kind {self.kind} needs {key}")
        if self.verdict and (self.kind != "statement" or self.check or not self.note):
            raise ValueError(
                f"{self.id}: only a statement without a check is given its verdict, and a note that says why"
            )
        closed = self.kind in ("params", "budget", "memory", "statement")
        object.__setattr__(self, "needs", self.needs or ("nothing" if closed else "gpu"))
        sense = "above" if self.kind == "comparison" else "equal"
        object.__setattr__(self, "sense", self.sense or sense)
        object.__setattr__(self, "networks", self.networks or [self.recipe])
        return self

    @property
    def figure(self) -> Decimal:
        """The printed value, in its unit."""
        assert self.value is not None
        return Decimal(self.value.replace(",", ""))

    @property
    def side(self) -> Side:
        """What a claim of one figure measures."""
        return Side(recipe=self.recipe, metric=METRICS[self.kind], epoch=self.epoch)

    @property
    def sides(self) -> list[Side]:
        """All that must be measured: two sides of a comparison, one of a figure, none where nothing is."""
        if self.left and self.right:
            return [self.left, self.right]
        return [self.side] if self.kind in METRICS else []


class Report(_Strict):
    """A report's claims; `rows` are its recipes, those without a claim of their own too."""

    report: str
    title: str
    rows: list[str]
    claim: list[Claim]


@functools.cache
def load_reports() -> tuple[Report, ...]:
    """Return every shipped report, by name. Raises UsageError naming file and key where one is malformed."""
    paths = sorted((p for p in SHIPPED.iterdir() if p.name.endswith(".toml")), key=lambda p: p.name)
    return tuple(parse_report(tomllib.loads(path.read_text(encoding="utf-8")), path.name) for path in paths)


def parse_report(table: dict[str, Any], where: str) -> Report:
    """Return the checked report of a parsed TOML table; `where` names it in errors (UsageError)."""
    try:
        report = Report(**table)
    except ValidationError as error:
        raise UsageError(f"{where}: {explain(error, [*Report.model_fields, *Claim.model_fields])}") from error
    ids = [claim.id for claim in report.claim]
    for claim in report.claim:
        if ids.count(claim.id) > 1:
            raise UsageError(f"{where}: {claim.id}: stands twice. Give each claim an id of its own.")
        if claim.depends is not None and claim.depends not in ids:
            raise UsageError(f"{where}: {claim.id}: depends on {claim.depends!r}, which is no claim of this report.")
    return report


def row_names() -> list[str]:
    """Return the recipes of all reports' rows, in the reports' order."""
    return [name for report in load_reports() for name in report.rows]


def find_row(name: str) -> str:
    """Return `name` if it is a shipped recipe, a report's row or another; raises UsageError naming the rows."""
    if name not in recipe_names():
        hint = nearest(name, recipe_names())
        raise UsageError(f"{name}: is no shipped recipe.{hint} The reports' rows: {', '.join(row_names())}.")
    return name


def select(reports: Sequence[Report], name: str | None) -> list[Report]:
    """Return the report called `name`, or all; raises UsageError naming the reports."""
    found = [report for report in reports if name in (None, report.report)]
    if not found:
        names = ", ".join(report.report for report in reports)
        raise UsageError(f"--report {name}: is no report. The reports: {names}.")
    return found
