"""What a study found: counts, winner and page, from a real database filled by hand."""

from html.parser import HTMLParser

import pytest
from optuna import TrialPruned
from optuna.trial import TrialState

from resfit.study import trials
from resfit.study.answer import live_lines, summarise, to_text
from resfit.study.report import report_page
from resfit.study.space import load_space
from resfit.study.trials import list_rows, open_study, suggest

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage", "ignore::optuna.exceptions.ExperimentalWarning")
VALUES = (0.5, 0.7, 0.6, 0.65)


@pytest.fixture
def found(tmp_path):
    """A space with four trials trained, one pruned and one over the budget, and rows not yet trained."""
    space = load_space("small", ["search.finalists=2", "search.seeds=2", "search.sampler=random"])
    same = {"space": space.text(), "data": "x"}
    url = f"sqlite:///{tmp_path}/study.db"
    with (
        open_study(url, "a", same, space.search) as drawn,
        open_study(url, "b", same, space.search) as rows,
    ):
        fill_trials(space, drawn)
        yield space, {"trials": drawn, "rows": rows}


def fill_trials(space, study):
    for number, value in enumerate(VALUES):
        trial = study.ask()
        space.recipe(suggest(trial, space))
        trial.set_user_attr("params", 1000 + number)
        trial.set_user_attr("macs", 10_000 * (number + 1))
        trial.report(value, 9)
        study.tell(trial, value)
    pruned = study.ask()
    suggest(pruned, space)
    pruned.report(0.4, 3)
    study.tell(pruned, state=TrialState.PRUNED)
    over = study.ask()
    suggest(over, space)
    with pytest.raises(TrialPruned):
        trials.give_up(over, "over budget")
    study.tell(over, state=TrialState.PRUNED)


def train_rows(space, studies, value_of):
    list_rows(studies["rows"], {1: "trial 1", 3: "trial 3"}, [1, 2])
    while studies["rows"].get_trials(states=(TrialState.WAITING,)):
        trial = studies["rows"].ask()
        row, seed = (trial.suggest_int(name, 0, 2**31) for name in ("row", "seed"))
        studies["rows"].tell(trial, value_of(row, seed))


def test_before_the_finalists_the_best_trial_leads_unconfirmed(found):
    space, studies = found
    value = summarise(space, studies, 5)
    assert value["counts"] == {"trials": {"complete": 4, "pruned": 1, "over budget": 1}, "rows": {}}
    assert [trial["slot"] for trial in value["trials"]] == ["0", "1", "2", "3", "4"]
    assert (value["winner"]["label"], value["winner"]["confirmed"]) == ("trial 1", False)
    assert "no other seed has been trained" in to_text(value)


def test_the_finalists_own_seeds_decide(found):
    space, studies = found
    train_rows(space, studies, lambda row, seed: {1: 0.60, 3: 0.66}[row] + 0.01 * seed)
    value = summarise(space, studies, 5)
    assert (value["winner"]["label"], value["winner"]["confirmed"]) == ("trial 3", True)
    assert value["winner"]["values"] == pytest.approx([0.67, 0.68])
    assert value["winner"]["mean"] == pytest.approx(0.675)
    assert value["winner"]["point"] == value["trials"][3]["point"]
    low, high = value["winner"]["interval"]  # by hand: t(1) = 12.706, sd = 0.0070711
    assert high - low == pytest.approx(2 * 12.706 * 0.0070711 / 2**0.5, rel=1e-3)
    assert "winner: trial 3" in to_text(value)


def test_lines_while_it_goes(found):
    space, studies = found
    table, ended = live_lines(space, studies, 9)
    assert table[0] == "5 of 9 trials ended, 0 in training; the best on val:"
    assert table[1].split() == ["trial", "1", "70.00%", "1,001", "params"]
    assert len(table) == 5
    assert any("pruned after epoch 3 val 40.00%" in line for line in ended)


class Page(HTMLParser):
    VOID = ("meta", "br", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.texts = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("href", "src") if name in found]
        self.open += [] if tag in self.VOID else [tag]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_whole_and_asks_for_nothing(found):
    space, studies = found
    train_rows(space, studies, lambda row, seed: 0.5 + 0.01 * row)
    value = summarise(space, studies, 5) | {"name": "<script>alert(1)</script>"}
    page = report_page(value)
    read = Page(page)
    assert not read.links
    assert len(read.ids) == len(set(read.ids))
    assert "<script>" not in page
    text = " ".join(read.texts)
    assert "70.00%" in text
    assert "Validation accuracy by macs" in text
    assert "Values of each trial" in text
    assert "Winner: trial 3" in text


def test_a_page_of_nothing_yet(tmp_path):
    space = load_space("r1")
    with open_study(f"sqlite:///{tmp_path}/study.db", "r", {}, space.search) as study:
        value = summarise(space, {"rows": study}, 1)
    assert Page(report_page(value))
    assert [row["claim"] for row in value["rows"]][4] == "95%"
    assert [row["n"] for row in value["rows"]] == [0] * 5
