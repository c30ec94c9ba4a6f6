"""The model card, the results and the receipt of a bundle: what the Hub's library reads of them; that their code runs."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml as pyyaml
from PIL import Image

from resfit.cli import main
from resfit.errors import ResourceError, UsageError
from resfit.evaluation import card
from resfit.evaluation.answers import predict
from resfit.evaluation.bundle import load_bundle
from resfit.evaluation.card import card_text, read_facts, write_card
from resfit.evaluation.cardtext import card_body
from resfit.evaluation.holdout import test as open_test
from resfit.evaluation.markup import fenced, markdown, visible, yaml
from resfit.runs import Run

HOSTILE = (
    "<script>alert(1)</script>",
    "a | b |\n| c",
    "---\nlicense: mit\n---",
    "[x](http://evil.example) ![y](z) https://evil.example www.evil.example",
    "\x1b[31mred\x1b[0m\x07",
    "\u202eexe.gpj\u2066",
    "```\n# heading",
    "猫 Ü 😀 \udc80",
    ": {a: *b, !!python/object: c} # d",
    " ",
    "x" * 5000,
    "`c` **d** __e__ ~~f~~ $g$ &amp; \\",
)


@pytest.fixture
def run(tmp_path, trained) -> Run:
    shutil.copytree(trained.folder, tmp_path / "run")
    return Run(tmp_path / "run")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)\n^```$", text, re.DOTALL | re.MULTILINE)


def test_the_hubs_library_reads_the_card_and_the_results(run, need):
    need("huggingface_hub")
    from huggingface_hub import ModelCard, eval_result_entries_to_yaml, parse_eval_result_entries

    assert (run.bundle / "README.md").read_bytes()  # training wrote it
    assert not (run.bundle / "test.json").exists()
    before = ModelCard.load(run.bundle / "README.md").data
    val = run.summary["val"]["accuracy"]
    assert [(r.dataset_split, r.metric_value) for r in before.eval_results] == [("validation", val)]
    receipt = open_test(run.folder, device="cpu")
    data = ModelCard.load(run.bundle / "README.md").data
    found = {r.dataset_split: r for r in data.eval_results}
    assert found["test"].metric_value == receipt["accuracy"]
    assert found["test"].metric_type == "accuracy"
    assert found["test"].dataset_type == f"local/{receipt['fingerprint']}"
    assert found["validation"].metric_value == val
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("resfit", "image-classification", "tiny")
    parsed = pyyaml.safe_load((run.bundle / ".eval_results" / "test.yaml").read_text())
    (entry,) = parse_eval_result_entries(parsed)
    assert (entry.value, entry.date) == (receipt["accuracy"], receipt["when"])
    assert entry.dataset_id == f"local/{receipt['fingerprint']}"
    assert eval_result_entries_to_yaml([entry]) == parsed
    shipped = json.loads((run.bundle / "test.json").read_text())
    assert shipped == {key: value for key, value in json.loads(run.receipt_file.read_text()).items() if key != "source"}


def test_the_card_says_where_it_comes_from_and_nothing_of_the_machine(run):
    open_test(run.folder, device="cpu")
    files = [path for path in run.bundle.rglob("*") if path.is_file()]
    texts = b"".join(path.read_bytes() for path in files)
    for word in (run.info["source"], str(run.folder), str(Path.home()), "/tmp", run.info["created"]):
        assert word.encode() not in texts
    text = (run.bundle / "README.md").read_text()
    val, receipt = run.summary["val"], json.loads(run.receipt_file.read_text())
    for words in (
        run.info["verdict"],
        f"{val['accuracy']:.2%} | {val['interval'][0]:.2%} to {val['interval'][1]:.2%} | {val['n']} |",
        f"{receipt['accuracy']:.2%} |",
        f"opening {receipt['opening']} of this test set",
        f"Trained on {run.summary['train_images']} images; weights: best epoch on val (epoch",
        "no test-time augmentation",
        run.info["data"]["train"],
        receipt["fingerprint"],
        f"torch {run.info['versions']['torch']}",
        run.recipe_file.read_text().strip(),
        "## Limits",
    ):
        assert words in text
    assert "onnx" not in text.lower()


def test_writing_again_changes_nothing_and_a_lost_card_comes_back(run, monkeypatch):
    open_test(run.folder, device="cpu")
    before = {path: path.read_bytes() for path in run.bundle.rglob("*") if path.is_file()}
    monkeypatch.setattr(card.durable, "write_text", lambda *words: pytest.fail("nothing is to be written"))
    write_card(run)
    monkeypatch.undo()
    for name in card.BESIDE:  # as a kill between receipt and card leaves it
        (run.bundle / name).unlink()
    open_test(run.folder, device="cpu")
    assert {path: path.read_bytes() for path in before} == before
    (run.bundle / "README.md").unlink()

    def full(*words: object) -> None:
        raise ResourceError("full")

    monkeypatch.setattr(card.durable, "write_text", full)
    assert open_test(run.folder, device="cpu")["reopened"] is False  # the receipt is told all the same


def test_a_file_that_cannot_be_read_is_an_error_and_no_card_without_it(run):
    open_test(run.folder, device="cpu")
    before = (run.bundle / "test.json").read_bytes()
    run.receipt_file.rename(run.folder / "aside")
    run.receipt_file.mkdir()  # there, and not to be read
    with pytest.raises(ResourceError, match=r"test\.json: cannot be read: Is a directory"):
        write_card(run)
    assert (run.bundle / "test.json").read_bytes() == before
    run.receipt_file.rmdir()
    (run.folder / "aside").rename(run.receipt_file)
    (run.bundle / "config.json").write_text("{")
    with pytest.raises(UsageError, match="the bundle cannot be read"):
        write_card(run)
    assert open_test(run.folder, device="cpu")["reopened"] is False


def test_what_the_card_tells_to_do_works(run, tmp_path, need, digit_arrays, monkeypatch):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        need(name)
    monkeypatch.setattr("resfit.shipping.export.SECONDS", 0.01)
    assert main(["export", str(run.folder)]) == 0
    text = (run.bundle / "README.md").read_text()
    assert "onnx" in pyyaml.safe_load(text.split("---\n")[1])["tags"]
    photos = tmp_path / "photos"
    photos.mkdir()
    grey = Image.fromarray(digit_arrays[0][0]).resize((40, 30))
    alpha = Image.merge("RGBA", [grey, grey, grey, Image.linear_gradient("L").resize((40, 30))])
    alpha.save(photos / "alpha.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    grey.save(photos / "turned.jpg", exif=turned)
    (command,) = [block for block in blocks(text, "") if block.startswith("resfit predict")]
    words = command.replace("FOLDER", str(run.bundle)).replace("photos/", str(photos)).split()[1:]
    words[words.index("answers.csv")] = str(tmp_path / "answers.csv")
    assert main(words) == 0
    lines = (tmp_path / "answers.csv").read_text().splitlines()
    answers = {row["ID"]: row["Labels"] for row in csv.DictReader(lines)}
    with_resfit, without = blocks(text, "python")
    assert len(without.splitlines()) <= 12
    (run.bundle / "card.py").write_text("import sys\nsys.modules.update(torch=None, resfit=None)\n" + without)
    ours = predict([run.folder], [photos], "cpu")  # by our own decoder
    for photo, probs in zip(ours.ids, ours.probs, strict=True):
        command = [sys.executable, "card.py", photo]
        done = subprocess.run(command, cwd=run.bundle, capture_output=True, text=True, check=True)
        name, prob = done.stdout.split()
        assert name == answers[photo] == ours.class_names[probs.argmax()]
        assert float(prob) == pytest.approx(probs.max(), abs=2e-4)
    space = {"images": np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)}
    exec(with_resfit.replace("FOLDER", str(run.bundle)), space)
    assert len(space["names"]) == 5
    assert set(space["names"]) <= set(load_bundle(run.folder, "cpu").class_names)


def test_the_card_has_what_evaluate_full_found(run):
    full = {"n": 30, "nll": 0.5, "selective": {"aurc": 0.0123, "points": []}}
    full["calibration"] = {"ece": 0.0456, "temperature": 1.25, "scaled": {"ece": 0.0321, "nll": 0.4}}
    full["duplicates"] = {"exact": 2, "near": 3, "accuracy_without": {"accuracy": 0.875, "n": 25}}
    rows = [{"name": "gaussian_noise", "strength": k, "accuracy": 0.5 - k / 100} for k in range(1, 6)]
    full["corruptions"] = {"n": 30, "clean": 0.9, "mean": 0.47, "rows": rows}
    (run.folder / "evaluation.json").write_text(json.dumps(full))
    write_card(run)
    text = (run.bundle / "README.md").read_text()
    for words in (
        "0.0456",
        "temperature 1.250",
        "0.0123",
        "2 exact and 3 near",
        "87.50% (n 25)",
        "mean over all: 47.0%",
    ):
        assert words in text
    assert "| gaussian\\_noise | 49.0% | 48.0% | 47.0% | 46.0% | 45.0% |" in text


def test_timms_keys_stand_beside_ours(run):
    config = json.loads((run.bundle / "config.json").read_text())
    model = load_bundle(run.folder, "cpu").model
    cfg = config["pretrained_cfg"]
    assert cfg["input_size"] == [3, 16, 16]
    assert (cfg["interpolation"], cfg["crop_pct"], cfg["crop_mode"]) == ("bicubic", 1.0, "squash")
    assert [cfg["mean"], cfg["std"]] == [config["preprocessing"][key] for key in ("mean", "std")]
    assert config["num_classes"] == cfg["num_classes"] == len(config["class_names"]) == 3
    assert config["label_names"] == config["class_names"]
    assert model.get_submodule(cfg["first_conv"]).weight.shape[1] == 3
    assert model.get_submodule(cfg["classifier"]).weight.shape[0] == 3


def test_hostile_names_are_words_and_nothing_else(run):
    facts = read_facts(run)
    names = list(HOSTILE)
    facts["config"] |= {"class_names": names, "num_classes": len(names)}
    row = {"n": 2, "correct": 1, "accuracy": 0.5, "interval": [0.1, 0.9]}
    facts["summary"]["val"]["classes"] = dict.fromkeys(names, row)
    text = card_text(facts)
    front, body = text.split("---\n", 2)[1:]
    assert pyyaml.safe_load(front)["model-index"][0]["name"] == "tiny"
    assert body.replace("\n", "").isprintable()
    body.encode()
    table = body.split("## Classes\n\n")[1].split("\n\n")[0].splitlines()
    assert len(table) == len(names) + 2
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in table)
    for line in table[2:]:
        plain = re.sub(r"\\[!-/:-@\[-`{-~]", "", line)  # what is escaped means itself
        assert not re.search(r"[<>\[\]`*_~$&#!\\:@]|www\.", plain)
    assert body.count("## ") == card_body(read_facts(run)).count("## ")


def test_names_survive_a_reader_of_markdown_and_yaml():
    for name in HOSTILE:
        short = visible(name) if len(visible(name)) <= 80 else visible(name)[:79] + "…"
        assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown(name)) == short
        assert "\n" not in markdown(name)
        value = {"a": [{"b": name, "c": [name, 1]}, name], "d": {"e": 1e-05, "f": 3}}
        text = yaml(value)
        assert text.isascii()
        clean = json.loads(json.dumps(value).replace("\\udc80", "\\ufffd"))
        assert pyyaml.safe_load(text) == clean
        block = fenced(name + "\n```\n````")
        assert block.splitlines()[0] == block.splitlines()[-1] == "`````"
