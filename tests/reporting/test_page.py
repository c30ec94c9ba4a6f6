"""The page says what the files say, keeps hostile names out, says what it lacks, and refuses what a user may get wrong."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from resfit.cli import main
from resfit.errors import ResourceError, UsageError
from resfit.evaluation.metrics import mean_interval
from resfit.reporting import figures, pictures
from resfit.reporting import page as pages
from resfit.reporting.facts import count
from resfit.reporting.page import name, report


class Page(HTMLParser):
    """Tags with their attributes, the text, and each table as rows of cells, read by the standard library."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.tables, self.words, self.cell = [], [], [], None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th") and self.tables:
            self.tables[-1][-1].append("")
            self.cell = self.tables[-1][-1]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        self.words.append(data)
        if self.cell is not None:
            self.cell[-1] += data

    def table(self, *head):
        return next(
            table[1:] for table in self.tables if [cell.strip() for cell in table[0][: len(head)]] == list(head)
        )


@pytest.fixture
def page(hostile, tmp_path) -> Page:
    report(hostile.folder, tmp_path / "page.html")
    return Page(tmp_path / "page.html")


def percent(value):
    return f"{100 * value:.2f}%"


def test_scores_are_those_of_the_files_each_with_n_interval_and_how(hostile, page):
    receipt, val = json.loads(hostile.receipt_file.read_text()), hostile.summary["val"]
    for row, score in zip(page.table("split", "accuracy"), (receipt, val), strict=True):
        low, high = score["interval"]
        assert row[1:4] == [percent(score["accuracy"]), f"{percent(low)} to {percent(high)}", str(score["n"])]
        assert row[4] == f"{score['nll']:.4f}"
        assert row[5] == "trained on 216 images; weights: best epoch on val; no test-time augmentation"
    assert f"{percent(receipt['accuracy'])} test accuracy 95% {percent(receipt['interval'][0])} to" in page.text
    body = page.text[page.text.index("resfit report<b>hostile") :]
    assert body.index("test accuracy") < body.index("Within budget: 5,198 / 20,000 params.") < 700


def test_sections_have_the_numbers_of_evaluation_json(hostile, page):
    found = json.loads((hostile.folder / "evaluation.json").read_text())
    matrix = next(table for table in page.tables if table[0][0].strip() == "true class")[1:]
    assert [[int(cell or 0) for cell in row[1:]] for row in matrix] == found["confusion"]
    classes = page.table("class", "train n")
    assert [row[1] for row in classes] == ["36"] * 6
    assert [row[5] for row in classes] == [percent(one["accuracy"]) for one in found["classes"].values()]
    for row in page.table("corruption", "1"):
        rows = [one["accuracy"] for one in found["corruptions"]["rows"] if one["name"] == row[0]]
        assert row[1:] == [f"{100 * value:.1f}%" for value in [*rows, sum(rows) / len(rows)]]
    assert f"Expected calibration error {found['calibration']['ece']:.4f} as trained, 0.0300" in page.text
    assert "Temperature fitted on all of val: 1.250. Area under the risk-coverage curve: 0.4000." in page.text
    assert "in train too: 1; nearly so: 1; accuracy without them 50.00% (95% 30.00% to 70.00%, n 22)" in page.text
    shown = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert len(shown) == len(found["mistakes"]) + len(found["suspicious"])
    assert all(alt.startswith(("true class ", "labelled ")) for alt in shown)


def test_thumbnails_are_the_images(hostile, page):
    import base64
    import io

    from resfit.data.images import PixelRule
    from resfit.data.sources import load_split

    rows = [row["row"] for row in json.loads((hostile.folder / "evaluation.json").read_text())["mistakes"]]
    val = load_split(hostile.info["source"], "val", PixelRule(16), 0.1).images[np.array(rows)]
    uris = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    for uri, pixels in zip(uris, val, strict=False):
        image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
        assert np.array_equal(np.asarray(image).transpose(2, 0, 1), pixels)


def test_nothing_outside_is_named_and_no_hostile_name_gets_through(page):
    for tag, attrs in page.tags:
        assert not [key for key in attrs if key.startswith("on")], tag
        for key in ("href", "src", "action", "srcset", "data"):
            assert (attrs.get(key) or "#").startswith(("#", "data:image/png;base64,")), (tag, key)
    assert {tag for tag, _ in page.tags} & {"link", "iframe", "object", "base", "form", "b"} == set()
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page.source)
    assert not [c for c in page.source if not c.isprintable() and c != "\n"]
    assert "{{ 7 * 7 }}" in page.text  # and not 49: a name is no template
    assert "<img src=x …dow.pwned=1>" in page.text
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 1


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("=1+1", "&#39;=1+1"),
        ("@SUM(A1)", "&#39;@SUM(A1)"),
        ("-1", "-1"),
        ("+2.5", "+2.5"),
        ("-2+3", "&#39;-2+3"),
        ("a\x1b[0m", "a\N{REPLACEMENT CHARACTER}[0m"),
        ("\u202eb", "\N{REPLACEMENT CHARACTER}b"),
        ("<b>", "&lt;b&gt;"),
    ],
)
def test_a_name_is_shown_as_text(given, shown):
    assert name(given) == f"<bdi>{shown}</bdi>"


def test_the_test_split_is_never_opened(hostile, runs, tmp_path, monkeypatch):
    data = tmp_path / "data"
    shutil.copytree(runs / "data", data)
    for file in (data / "test").rglob("*.png"):
        file.write_bytes(b"no image")
    monkeypatch.setenv("RESFIT_CACHE", str(tmp_path / "cache"))
    before = {file: file.read_bytes() for file in (runs / "state").rglob("*.jsonl")}
    assert report(hostile.folder, tmp_path / "a.html", data)["notes"] == []
    assert (
        Page(tmp_path / "a.html").text.count("→")
        == len([t for t, _ in Page(tmp_path / "a.html").tags if t == "img"])
        > 5
    )
    assert before == {file: file.read_bytes() for file in (runs / "state").rglob("*.jsonl")} != {}


def test_what_is_not_there_is_said(hostile, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(hostile.folder, folder)
    (folder / "evaluation.json").unlink()
    (folder / "test.json").unlink()
    (folder / "run.json").write_text(json.dumps(hostile.info | {"source": "/nowhere/images"}))
    found = report(folder)
    assert found["out"] == str(folder / "report.html")
    page = Page(folder / "report.html")
    assert page.text.count(f"Not measured yet: run resfit evaluate {folder} --full for this.") == 3
    assert "Not tested: this run has not opened the test split." in page.text
    assert "No thumbnails: /nowhere/images: the images of" in page.text
    assert found["notes"] == [f"{folder}: no thumbnails: /nowhere/images: the images of {folder} are no longer there. "
                              "Name the place with --data."]  # fmt: skip
    assert found["runs"][0]["split"] == "val"
    known = json.loads((hostile.folder / "evaluation.json").read_text())  # counted from the predictions instead
    matrix = next(table for table in page.tables if table[0][0].strip() == "true class")[1:]
    assert [[int(cell or 0) for cell in row[1:]] for row in matrix] == known["confusion"]
    assert page.text.count("→") == len(known["mistakes"])


def test_a_refit_run_has_nothing_held_out(hostile, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(hostile.folder, folder)
    (folder / "evaluation.json").unlink()
    (folder / "run.json").write_text(json.dumps(hostile.info | {"refit": True}))
    (folder / "summary.json").write_text(json.dumps(hostile.summary | {"val": None}))
    report(folder)
    page = Page(folder / "report.html")
    assert page.text.count("refit on train + val, so that no image is held out") == 5
    assert "--full" not in page.text
    assert "--refit" in page.text  # in the command


def test_several_runs_and_seeds(hostile, runs, tmp_path):
    paths = [hostile.folder, runs / "plain", runs / "seeds"]
    found = report(paths, tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    table = page.table("run", "test accuracy", "val accuracy", "params", "macs", "bytes", "training", "how")
    assert [row[0] for row in table] == ["<b>hostile & 'run'", "plain", "seeds mean of 3 seeds"]
    val, receipt = hostile.summary["val"], json.loads(hostile.receipt_file.read_text())
    assert table[0][1].startswith(f"{percent(receipt['accuracy'])} {percent(receipt['interval'][0])} to")
    assert table[0][2].endswith(f"n {val['n']}")
    assert table[1][1] == table[2][1] == "not tested"
    assert table[0][3:6] == ["5,198", "579,680", "20,792"]
    seeds = [
        json.loads((runs / "seeds" / f"seed-{k}" / "summary.json").read_text())["val"]["accuracy"] for k in range(3)
    ]
    over = mean_interval(seeds)
    assert table[2][2].startswith(
        f"{percent(over['mean'])} ± {percent(over['std'])} {percent(max(0, over['interval'][0]))}"
    )
    assert [row[2] for row in page.table("seed", "split", "accuracy")] == [percent(value) for value in seeds]
    assert "Val accuracy by params" in page.text  # one of three was tested
    assert "recipe is not r5 as it is shipped" in page.text
    assert [run["accuracy"] for run in found["runs"]] == [receipt["accuracy"], seeds[0], over["mean"]]


def test_the_same_files_give_the_same_bytes(hostile, tmp_path):
    first, again = tmp_path / "a.html", tmp_path / "b.html"
    found = report(hostile.folder, first)
    report(hostile.folder, again)
    assert first.read_bytes() == again.read_bytes()
    assert found["bytes"] == first.stat().st_size < 2_000_000


def test_the_page_stays_small(hostile, runs, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (20, 3, 128, 128), np.uint8)
    made = pictures.encode(dict(enumerate(noise)), 400_000)
    assert len(made) == 20
    assert sum(map(len, made.values())) <= 400_000
    few = pictures.encode(dict(enumerate(noise)), 5_000)
    assert 0 < len(few) < 20
    assert list(few) == list(range(len(few)))
    monkeypatch.setattr(pages, "LIMIT", 120_000)
    found = report([hostile.folder, runs / "seeds"], tmp_path / "a.html")
    assert found["bytes"] <= 120_000
    assert "of the runs are in the tables only" in found["notes"][-1]
    assert "not shown in full here" in Page(tmp_path / "a.html").text


def test_mistakes_of_a_user(hostile, runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, plain = str(hostile.folder), str(runs / "plain")
    (tmp_path / "unfinished").mkdir()
    shutil.copy(hostile.info_file, tmp_path / "unfinished" / "run.json")
    (tmp_path / "file").write_text("")
    cases = {
        (run, run, "-o", "a.html"): (2, "is named twice"),
        (str(runs / "seeds"), str(runs / "seeds" / "seed-1"), "-o", "a.html"): (2, "is named twice"),
        ("nowhere", "-o", "a.html"): (2, "nowhere: is not a run folder"),
        ("unfinished", "-o", "a.html"): (2, "unfinished: has not finished. Run `resfit resume unfinished` first."),
        (run, plain): (2, "Say where to write: -o report.html"),
        (run, "-o", run): (2, "is a folder"),
        (run, "-o", f"{run}/run.json"): (2, "is not .html"),
        (run, "-o", "file/a.html"): (6, "cannot be written"),
        (run, "--ou", "a.html"): (2, "--ou: no such option. Did you mean '--out'"),
    }
    before = hostile.info_file.read_bytes()
    for words, (code, message) in cases.items():
        assert main(["report", *words]) == code, words
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("resfit: ")
        assert err.count("\n") == 1
        assert message in err
    assert hostile.info_file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".html") == []


def test_damaged_files_are_named(hostile, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(hostile.folder, folder)
    for text, message in (("{", "cannot be read as JSON"), ('{"format": "x"}', "is not of the format"),
                          ('{"format": "resfit-evaluation-1", "fingerprint": "x"}', "is of other images"),
                          ('{"format": "resfit-evaluation-1"}', "Write it anew: resfit evaluate")):  # fmt: skip
        (folder / "evaluation.json").write_text(text)
        with pytest.raises(UsageError, match=message):
            report(folder)
    assert not (folder / "report.html").exists()
    with pytest.raises(ResourceError):
        report(hostile.folder, "/proc/nowhere/a.html")


def test_json_is_the_contract(hostile, tmp_path, capsys):
    out = tmp_path / "a.html"
    assert main(["report", str(hostile.folder), "-o", str(out), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert list(value) == ["out", "bytes", "runs", "notes"]
    assert (value["out"], value["bytes"]) == (str(out), out.stat().st_size)
    assert list(value["runs"][0]) == ["run", "name", "seeds", "split", "accuracy", "interval", "n"]
    assert main(["report", str(hostile.folder), "-o", str(out)]) == 0
    assert re.search(
        r"test accuracy \d+\.\d\d% \(95% .* to .*, n 60\)\nwritten to .* bytes\)\n$", capsys.readouterr().err
    )


def test_an_export_is_shown(hostile, tmp_path):
    from resfit.shipping.export import export

    folder = tmp_path / "run"
    shutil.copytree(hostile.folder, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resfit.shipping.export.SECONDS", 0.01)
        made = export(folder, "safetensors", float16=True)
    report(folder)
    (row,) = Page(folder / "report.html").table("exported file", "precision", "bytes")
    size = made["rows"][1]["bytes"]
    assert row[:3] == ["model-float16.safetensors", "float16", f"{size:,}"]
    assert row[3:] == [percent(made["parity"]["accuracy"]), percent(made["parity"]["agreement"]), "24"]


def test_the_front_is_what_none_beats():
    random = np.random.default_rng(1)
    rows = [{"name": str(k), "accuracy": float(a), "interval": None, "params": int(p)}
            for k, (a, p) in enumerate(zip(random.random(40), random.integers(1_000, 10**6, 40), strict=True))]  # fmt: skip
    figure = figures.pareto(rows, "params", "val")
    best = [r for r in rows if not any(o["params"] <= r["params"] and o["accuracy"] > r["accuracy"] for o in rows)]
    (front,) = [shape for shape in figure.drawing.shapes if getattr(shape, "title", "").startswith("no other")]
    assert len(front.points) == len(best)
    places = {(point["x"], point["y"]): point["text"] for point in figure.points}
    assert {places[place].split(":")[0] for place in front.points} == {f"\u2068{r['name']}\u2069" for r in best}
    assert figures.pareto(rows[:1], "params", "val") is None
    assert figures.pareto([rows[0], rows[0]], "params", "val") is not None  # one size: an axis all the same


def test_confusion_and_mistakes_are_counted_as_scikit_learn_does():
    from sklearn.metrics import confusion_matrix

    random = np.random.default_rng(0)
    probs, labels = random.dirichlet(np.ones(5), 400), random.integers(0, 5, 400)
    found = count(probs, labels, 5)
    assert found["confusion"] == confusion_matrix(labels, probs.argmax(1), labels=range(5)).tolist()
    sure = sorted((-probs[row].max(), row) for row in range(400) if probs[row].argmax() != labels[row])[:24]
    assert [row["row"] for row in found["mistakes"]] == [row for _, row in sure]
