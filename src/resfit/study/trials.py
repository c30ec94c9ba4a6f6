"""The trials of a study in its database (Optuna's: Akiba et al. 2019, arXiv 1907.10902), and the rules by which no kill can
lose one, count one twice, or leave one running for ever. No torch.

A trial whose worker died is failed once its heartbeat has stopped, and a new trial takes its *slot*: the same values, the
same run folder, so that training goes on from its last checkpoint, or is found finished. Any worker may do that at any time,
and two may do it at once: of the trials of one slot the earliest that is alive stands, and the others give up. Slots count.
"""

import contextlib
import itertools
import math
import os
import socket
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from resfit import durable
from resfit.errors import GateError, MissingExtraError, ResourceError, UsageError
from resfit.study.space import STAGED, STAGES, Range, Search, Space, plain, stage_counts

try:
    import optuna
    from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
    from optuna.storages import RDBStorage
    from optuna.trial import TrialState
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import (
        ArgumentError,
        IntegrityError,
        NoSuchModuleError,
        OperationalError,
        ProgrammingError,
        SQLAlchemyError,
    )
except ImportError as error:
    raise MissingExtraError(f"search: {error.name} is needed. Install it: pip install 'resfit[search]'.") from error

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

Studies = dict[str, "Study"]  # "trials", drawn by an engine, and "rows", a list: the finalists, or one change at a time

BEAT = 20  # seconds between two heartbeats of a trial
GRACE = 3  # beats without one, until its worker is taken for dead
UNBORN = 6  # beats that a trial may be without its first one, by this machine's clock: a kill can come before it
POLL = 0.5  # seconds between two looks at the database while there is nothing to take
SLOT, END, WORKER = "slot", "end", "worker"  # attributes of a trial
OVER = "over budget"  # of a study of rows: those that are not trained
# what `end` says of a trial whose slot does not count; of a second one in a slot; and of one that ended its slot by an error
# of its own, say a loss not finite
UNCOUNTED, DUPLICATE, FAILED = ("over budget", "refused", "surplus"), "duplicate", "failed"
LIVES = 20  # trials that may die in one slot, before it counts as failed: a network may be what kills its worker
IN_A_ROW = 2_000  # drawn recipes that may be over the budget, or refused

optuna.logging.set_verbosity(optuna.logging.ERROR)


@contextlib.contextmanager
def open_study(
    url: str, name: str, same: Mapping[str, str], search: Search, worker: int = 0, beat: int = BEAT
) -> Iterator["Study"]:
    """Open or make a study; the end of the block closes its connections.

    `same` is what all its workers must agree on, by word: UsageError names the first that differs. Raises UsageError for an
    address that cannot be read, ResourceError for a database that does not answer or is damaged.
    """
    with contextlib.ExitStack() as closing:
        with guarded(url):
            storage = _storage(url, beat)
            closing.callback(storage.engine.dispose)
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                pruner=_pruner(search),
            )
            # a worker that begins anew must not draw what it drew before
            study.sampler = _sampler(search, worker + 1_000 * len(study.get_trials(deepcopy=False)))
            kept = study.user_attrs
            for word, value in same.items():
                if word not in kept:
                    study.set_user_attr(word, value)
                elif kept[word] != value:
                    raise UsageError(
                        f"{shown(url)}: its study {name!r} has another {word}. Choose another --out or --storage."
                    )
        yield study


@contextlib.contextmanager
def guarded(url: str) -> Iterator[None]:
    """Turn a database's errors into one line."""
    try:
        yield
    except (ArgumentError, NoSuchModuleError) as error:
        raise UsageError(
            f"--storage {shown(url)}: is no address of a database. Write sqlite:///FILE or postgresql://USER@HOST/NAME."
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ or error  # what the engine wraps says more
        cause = getattr(cause, "orig", None) or cause
        reason = " ".join(str(cause).split())[:200].rstrip(".")
        raise ResourceError(
            f"{shown(url)}: the study's database does not work: {reason}. Mend that and run the same command again."
        ) from error


def shown(url: str) -> str:
    """Return an address without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def begin(study: "Study", trial: "Trial") -> None:
    """Note who has a trial, after a first heartbeat: the engine's own comes from a thread, and a kill may come before it."""
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    trial.set_user_attr(WORKER, f"{socket.gethostname()} {os.getpid()}")


def suggest(trial: "Trial", space: Space) -> dict[str, Any]:
    """Draw a point of the space: the value of each key, and of each stage where it is every stage's own."""
    point: dict[str, Any] = {}
    stages = int(_draw(trial, STAGES, space)) if STAGES in space.vary else stage_counts(space)[0]
    if STAGES in space.vary:
        point[STAGES] = stages
    for key, values in space.vary.items():
        if key == STAGES:
            continue
        own = key in STAGED and isinstance(values, Range)
        for name in [f"{key}.{number}" for number in range(stages)] if own else [key]:
            point[name] = _draw(trial, key, space, name)
    return point


def _draw(trial: "Trial", key: str, space: Space, name: str = "") -> Any:
    values, name = space.vary[key], name or key
    if not isinstance(values, Range):
        drawn = trial.suggest_categorical(name, [plain(value) for value in values])
        return space.point({key: drawn})[key]
    if values.whole:
        return trial.suggest_int(name, int(values.low), int(values.high), step=int(values.step or 1), log=values.log)
    return trial.suggest_float(name, values.low, values.high, step=values.step, log=values.log)


def slots(study: "Study") -> dict[str, list["FrozenTrial"]]:
    """Return the trials of each slot that counts, in order. One that takes a dead trial's slot may be what says it does not."""
    found, uncounted = defaultdict(list), set()
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get(END) in UNCOUNTED:
            uncounted.add(slot_of(trial))
        elif trial.user_attrs.get(END) != DUPLICATE:
            found[slot_of(trial)].append(trial)
    return {name: trials for name, trials in found.items() if name not in uncounted}


def slot_of(trial: "FrozenTrial | Trial") -> str:
    """Return the name of a trial's slot: the number of the first trial in it, or the row and seed of a list."""
    return str(trial.user_attrs.get(SLOT, trial.number))


def finished(study: "Study") -> dict[str, "FrozenTrial"]:
    """Return the trial that finished each slot: trained to its end, pruned, or failed for a reason of its own."""
    found: dict[str, FrozenTrial] = {}
    for name, trials in slots(study).items():
        ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or _failed(trial)]
        if ended or (len(trials) > LIVES and _dead(trials)):
            found[name] = (ended or trials)[0]
    return found


def _dead(trials: Sequence["FrozenTrial"]) -> bool:
    """Return whether every trial of a slot lost its worker."""
    return all(trial.state == TrialState.FAIL and not _failed(trial) for trial in trials)


def _failed(trial: "FrozenTrial") -> bool:
    return trial.state == TrialState.FAIL and trial.user_attrs.get(END) == FAILED


Wanted = int | frozenset[str]  # so many slots, or these


def fill(
    study: "Study",
    wanted: Wanted,
    objective: Callable[["Trial"], float],
    is_over: Callable[[], bool],
    beat: int = BEAT,
    most: float = math.inf,
) -> None:
    """Take trials and call `objective` on them until every slot that is wanted has finished, or the time is over.

    Return, too, after `most` slots that this process has finished. The objective returns a value, or ends by `give_up`,
    TrialPruned, or an error that ends the worker too.
    """
    own: list[str] = []

    def note(study: "Study", trial: "FrozenTrial") -> None:
        if trial.user_attrs.get(END) not in (*UNCOUNTED, DUPLICATE):
            own.append(slot_of(trial))

    while len(own) < most and not is_over():
        take_up(study, beat)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not waiting and holds(
            finished(study), wanted
        ):  # one that waits was queued by two, and ends as a slot's second
            _end_seconds(study)
            return
        if not waiting and holds(slots(study), wanted):
            time.sleep(min(POLL, beat))  # others train what is left
            continue
        turn = _turn(study)
        try:
            study.optimize(partial(_after, turn, objective), n_trials=1, catch=(GivenUp,), callbacks=[note])
        except UpdateFinishedTrialError:
            pass  # taken up by another, since this process had stopped for long
        except ValueError as error:
            if "Cannot tell a" not in str(error):  # a trial that another process was given too has been ended by it
                raise
        finally:
            turn.close()
        refuse_narrow(study)


def _end_seconds(study: "Study") -> None:
    """End what still runs in a slot that has ended: the worker of such a second trial may have been killed."""
    done = finished(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if slot_of(trial) in done:
            with contextlib.suppress(UpdateFinishedTrialError):
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def _turn(study: "Study") -> contextlib.ExitStack:
    """Hold the database, until closed, while this process asks for a trial: SQLite would give one that waits to two."""
    held = contextlib.ExitStack()
    url = str(getattr(getattr(study._storage, "_backend", study._storage), "url", ""))
    if url.startswith("sqlite:///"):
        held.enter_context(durable.turn(Path(url.removeprefix("sqlite:///"))))
    return held


def _after(turn: contextlib.ExitStack, objective: Callable[["Trial"], float], trial: "Trial") -> float:
    turn.close()
    return objective(trial)


def holds(found: Mapping[str, Any], wanted: Wanted) -> bool:
    """Return whether the slots that were found are all that are wanted."""
    return len(found) >= wanted if isinstance(wanted, int) else found.keys() >= wanted


def take_up(study: "Study", beat: int = BEAT) -> None:
    """Queue anew every slot whose trials have all died. Any worker may call this at any time."""
    with _quiet():
        optuna.storages.fail_stale_trials(study)
    now = datetime.now(UTC).astimezone().replace(tzinfo=None)  # as Optuna writes it
    for name, trials in slots(study).items():
        for trial in trials:
            unborn = trial.state == TrialState.RUNNING and WORKER not in trial.user_attrs
            if unborn and trial.datetime_start and now - trial.datetime_start > timedelta(seconds=UNBORN * beat):
                with contextlib.suppress(UpdateFinishedTrialError):  # another worker saw it too
                    study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        if _dead(trials) and len(trials) <= LIVES:
            # of all: the last may have died before it drew them
            known = {key: value for trial in trials for key, value in trial.params.items()}
            study.enqueue_trial(known, user_attrs={SLOT: name})


def stands(study: "Study", trial: "Trial", wanted: Wanted) -> str | None:
    """Return None if the trial is to be trained, else why not: another has its slot, or there are enough before it."""
    by_slot, name = slots(study), slot_of(trial)
    alive = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
    if name not in by_slot or any(other.number < trial.number and other.state in alive for other in by_slot[name]):
        return DUPLICATE  # of one that does not count, or of one that is alive
    if not isinstance(wanted, int):
        return None if SLOT in trial.user_attrs else "surplus"
    # slots by their first trials: whoever looks, and however late, the same ones stand, since none comes in before another
    before = sum(others[0].number < by_slot[name][0].number for others in by_slot.values())
    return "surplus" if before >= wanted else None


def give_up(trial: "Trial", reason: str) -> NoReturn:
    """End a trial without a value, by an exception that `Study.optimize` notes: `reason` is one of UNCOUNTED, or FAILED."""
    trial.set_user_attr(END, reason)
    if reason in UNCOUNTED[:2]:
        raise optuna.TrialPruned  # what samplers learn from
    raise GivenUp(reason)


class GivenUp(Exception):
    """A trial that is not trained here."""


def refuse_narrow(study: "Study") -> None:
    """Raise GateError when hardly a recipe of the space keeps the budget."""
    last = study.get_trials(deepcopy=False)[-IN_A_ROW:]
    if len(last) == IN_A_ROW and all(trial.user_attrs.get(END) in UNCOUNTED[:2] for trial in last):
        raise GateError(
            f"the last {IN_A_ROW:,} recipes drawn were over the budget or refused. Narrow the space's ranges."
        )


def list_rows(study: "Study", labels: Mapping[int, str], seeds: Sequence[int]) -> frozenset[str]:
    """Queue every row with every seed that the study has not had; several workers may do it at once. Return all slots."""
    known = slots(study)
    for seed, (row, label) in itertools.product(seeds, labels.items()):
        if f"{row}/{seed}" not in known:
            study.enqueue_trial({"row": row, "seed": seed}, user_attrs={SLOT: f"{row}/{seed}", "label": label})
    return frozenset(f"{row}/{seed}" for row in labels for seed in seeds)


def best_slots(ended: Mapping[str, "FrozenTrial"], count: int) -> list[str]:
    """Return the slots of the trials with the highest values that were trained to their end, best first."""
    complete = [(slot, trial) for slot, trial in ended.items() if trial.state == TrialState.COMPLETE]
    return [slot for slot, trial in sorted(complete, key=lambda item: (-item[1].values[0], int(item[0])))[:count]]


def _storage(url: str, beat: int) -> RDBStorage:
    """Connect; where another process makes the tables at the same moment, one of the two fails, and looks again."""
    address = url.replace("postgresql://", "postgresql+psycopg://", 1)  # the driver that the extra installs
    options = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {"pool_pre_ping": True}
    for last in (False, False, False, True):
        try:
            with _quiet():
                return RDBStorage(address, options, heartbeat_interval=beat, grace_period=GRACE * beat)
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"{shown(url)}: {error.name} is needed. Install it: pip install 'resfit[search,postgres]'."
            ) from error
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            if last or not (isinstance(error, IntegrityError) or "exist" in str(error)):
                raise
            time.sleep(1)
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out that heartbeats are experimental: the engine's version is pinned, and tests hold what we need of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _sampler(search: Search, more: int) -> "optuna.samplers.BaseSampler":
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=search.seed + more)
    return optuna.samplers.TPESampler(seed=search.seed + more)


def _pruner(search: Search) -> "optuna.pruners.BasePruner":
    made: dict[str, type[optuna.pruners.BasePruner]] = {
        "asha": optuna.pruners.SuccessiveHalvingPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
        "none": optuna.pruners.NopPruner,
    }
    return made[search.pruning]()
