"""The command line as a person meets it: what it prints where, exit codes, and mistakes answered in one line."""

import csv
import errno
import json
import os
import pickle
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resfit.cli import main
from resfit.models.families import cost
from resfit.models.networks import network
from resfit.runs import Run


def run(capsys, *words) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def copy(trained, tmp_path) -> Run:
    return Run(shutil.copytree(trained.folder, tmp_path / "copy"))


MISTAKES = {
    "trian r5": (2, "trian: no such verb. Did you mean 'train'"),
    "cost r55": (2, "r55: unknown network. Did you mean 'r5'"),
    "cost resnet:widths=1,2": (2, "blocks_per_stage"),
    "cost r5 --max-param 5M": (2, "--max-param: no such option. Did you mean '--max-params'"),
    "cost r5 r4-lighter": (2, "r4-lighter: one argument too many"),
    "cost r5 --max-params lots": (2, "'lots' is not a size"),
    "cost": (2, "NAME|SPEC"),
    "compare runs/none": (2, "B"),
    "compare runs/none runs/other": (2, "runs/none: is not a run folder"),
    "compare runs/none runs/none": (2, "is compared with itself"),
    "evaluate runs/none --full": (2, "runs/none: is not a run folder"),
    "evaluate runs/none --ful": (2, "--ful: no such option. Did you mean '--full'"),
    "report": (2, "RUN"),
    "report runs/none": (2, "runs/none: is not a run folder"),
    "report runs/a runs/b": (2, "Say where to write: -o report.html"),
    "report runs/none -o report.svg": (2, "report.svg: is not .html"),
    "export": (2, "RUN"),
    "export runs/none": (2, "runs/none: is not a run folder"),
    "export runs/none --format onx": (2, "--format: 'onx' is not known. Did you mean 'onnx'"),
    "export runs/none --format pt2 --int8": (2, "--int8: is for onnx, not for pt2"),
    "design --max-params 100": (3, "over budget"),
    "design --max-params lots": (2, "'lots' is not a size"),
    "design --family resnett": (2, "family: 'resnett' is not known. Did you mean 'resnet'"),
    "design --family whitened": (2, "whitened: does not say what its blocks cost"),
    "design --near r55": (2, "r55: unknown network. Did you mean 'r5'"),
    "design --near r5 --stages 3": (2, "Leave --family and --stages out"),
    "design --fix widths=64,x": (2, "widths: must be a whole number"),
    "design --fix width=64": (2, "width: is no field of a network. Did you mean 'widths'"),
    "design --fix kernel=4": (2, "kernel: must be odd"),
    "design --near r5 --fix widths=64,128": (2, "widths: 2 given, and no network of the ranges has so many stages"),
    "design --width-step 0": (2, "width_step: 0 is not from 1"),
    "design --max-latency 5": (2, "'5' is not a time. Write it as 5ms"),
    "design --max-latency 1ms --max-params 100": (3, "over budget"),
    "design --image-size 96 --max-ram 10k": (
        3,
        "image_size=96, is over budget: 1,906 / 5,000,000 params, 55,296 / 10,000",
    ),
    "design --image-size 224 --max-macs 1M": (3, "/ 1,000,000 macs (over by"),
    "design --image-size 96 --fix stem_stride=3": (2, "stem_stride: must be 1, 2 or 4, not 3"),
    "cost resnet-20 --image-size 0": (2, "image_size: must be a whole number, 1 or more, not 0"),
    "cost r4-lighter --image-size 16": (2, "pool: 8 is larger than the last map, of side 4"),
    "design --image-size 0": (2, "image_size: must be a whole number, 1 or more, not 0"),
    "design --near r4-lighter --image-size 16": (2, "pool: 8 is larger than the last map, of side 4"),
    "design --top 0": (2, "--top: 0 is not 1 or more"),
    "design r5": (2, "r5: one argument too many"),
    "--json list": (2, "Write `resfit VERB --json`"),
    "train r5 --data digits --set lr=0.1": (2, "lr: no such key. Did you mean 'optim.lr'?"),
    "train r5 --data digits --set epochs=1": (2, "epochs: no such key. Did you mean 'train.epochs'?"),
    "train r5 --data digits --set optim.lr=inf": (2, "optim.lr: Input should be a finite number"),
    "train r5 --data digits --seed 99999999999999999999999": (2, "is not from 0 to 2**63 - 1"),
    "train r5 --data digits --seed -1": (2, "is not from 0 to 2**63 - 1"),
    "train r5": (2, "--data"),
    "train r5 --data digits --seed x": (2, "--seed: invalid int value: 'x'"),
    "train r5 --data digits --seeds 0": (2, "--seeds: must be at least 1"),
    "train r4-lihter --data digits": (2, "r4-lihter: no recipe or network of that name. Did you mean 'r4-lighter'"),
    "train nowhere.toml --data digits": (2, "nowhere.toml: cannot be read"),
    "train r5 --data digits --set train.epoch=3": (2, "train.epoch: no such key. Did you mean 'epochs'"),
    "train wrn-28-10 --data digits": (3, "over budget: 36,479,194 / 5,000,000 params"),
    "train r5 --data nowhere": (4, "nowhere: neither a path that exists nor a known name"),
    "train r5 --data digts": (4, "Did you mean 'digits'"),
    "train resnet-8 --data digits --device cuda:7": (6, "--device cuda:7: is not usable here"),
    "resume nowhere": (2, "nowhere: is not a run folder"),
    "evaluate nowhere": (2, "nowhere: is not a run folder"),
    "test nowhere": (2, "nowhere: is not a run folder"),
    "curves nowhere -o a.svg": (2, "nowhere: does not exist"),
    "curves nowhere -o a.pdf": (2, "a.pdf: is neither .svg nor .png"),
    "curves nowhere": (2, "-o/--out"),
    "curves nowhere -o a.svg --metric nll": (2, "--metric: invalid choice: 'nll'"),
    "cost r5 --layer": (2, "--layer: no such option. Did you mean '--layers'"),
    "bench r55 --seconds 1": (2, "r55: no recipe or network of that name. Did you mean 'r5"),
    "bench --seconds 0": (2, "--seconds: must be more than 0"),
    "bench resnet-8 --device cuda:7": (6, "--device cuda:7: is not usable here"),
    "data": (2, "info|check|prepare"),
    "data check digits --group-by (": (2, "group_by: '(' is no regular expression"),
    "data check digits --group-by x": (4, "group_by: its images have no ids"),
    "data check digits --image-size 0": (2, "pixel rule: 0 pixels"),
    "data check digits -o page.pdf": (2, "page.pdf: is not .html"),
    "train digits --data digits --set data.group_by=(": (2, "data.group_by: is no regular expression"),
    "data inf digits": (2, "invalid choice: 'inf'"),
    "data info": (2, "data info: the following arguments are required: PATH"),
    "data info digits --image-siz 8": (2, "--image-siz: no such option. Did you mean '--image-size'"),
    "data prepare digits --image-size 0": (2, "pixel rule: 0 pixels, squash, bicubic: not known. Use 1 pixel or more"),
    "data check nowhere": (4, "nowhere: neither a path that exists nor a known name"),
    "push nowhere a/b": (2, "nowhere: is not a run folder"),
    "push nowhere b": (2, "b: is no repository's name. Write OWNER/NAME"),
    "pull ../b": (2, "../b: is no repository's name"),
    "predict nowhere photo.png": (2, "nowhere: is no finished run or bundle"),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line_and_the_right_exit_code(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, message = MISTAKES[words]
    found, out, err = run(capsys, *words.split())
    assert (found, out) == (code, "")
    assert err.startswith("resfit: ")
    assert err.count("\n") == 1
    assert message in err
    assert not os.listdir(tmp_path) or set(os.listdir(tmp_path)) <= {"cache", "state"}


def test_help_and_version(capsys):
    for words in (["--help"], ["cost", "--help"], ["train", "--help"], ["predict", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        assert "usage: resfit" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("resfit 0.")
    assert main([]) == 2


def test_cost_json_is_the_contract(capsys):
    code, out, err = run(capsys, "cost", "r4-deeper", "--max-params", "5M", "--json")
    value = json.loads(out)
    assert (code, err) == (0, "")
    assert value["name"] == "r4-deeper"
    assert value["spec"]["widths"] == [64, 128, 256]
    assert value["params"] == 4_697_162
    assert value["memory_mb"] == {"input": 0.01, "activations": 18.63, "params": 17.92, "total": 36.56}
    assert value["weight_bytes"] == 4 * value["params"]
    assert value["budget"]["ok"]


def test_cost_at_another_size_and_for_other_classes(capsys):
    value = json.loads(run(capsys, "cost", "resnet-20", "--image-size", 96, "--classes", 37, "--json")[1])
    assert (value["spec"]["image_size"], value["spec"]["stem_stride"], value["spec"]["classes"]) == (96, 2, 37)
    assert value["params"] == 272_474 + 27 * 65  # ten classes' count, and 27 rows of the last layer more
    assert "96x96 image, which the stem shrinks by 2" in run(capsys, "cost", "resnet-20", "--image-size", 96)[1]
    value = json.loads(run(capsys, "cost", "speed-cpu", "--image-size", 64, "--classes", 3, "--json")[1])
    assert (value["spec"]["image_size"], value["spec"]["classes"]) == (64, 3)


def test_design_json_is_the_contract(capsys):
    code, out, err = run(capsys, "design", "--max-params", "500k", "--max-ram", "60k", "--top", 3, "--json")
    value = json.loads(out)
    assert (code, err) == (0, "")
    assert [key for key in value if isinstance(value[key], list)] == ["networks"]
    assert value["budget"]["max_params"] == 500_000
    assert len(value["networks"]) == 3
    for row in value["networks"]:
        total = cost(network(row["network"]))
        assert (row["params"], row["macs"], row["ram"]) == (total.params, total.macs, total.peak)
        assert row["params"] <= 500_000
        assert row["ram"] <= 60_000
    assert value["networks"][0]["kept"] == "highest expected accuracy"


def test_design_keeps_what_is_fixed_and_stays_near(capsys):
    words = ["design", "--fix", "widths=16,24,64", "--fix", "kernel=5", "--image-size", 48, "--classes", 3, "--json"]
    for row in json.loads(run(capsys, *words)[1])["networks"]:
        assert (row["spec"]["widths"], row["spec"]["kernel"]) == ([16, 24, 64], 5)
        assert (row["spec"]["image_size"], row["spec"]["classes"]) == (48, 3)
    larger = json.loads(run(capsys, "design", "--fix", "image_size=96", "--fix", "blocks_per_stage=1,1,2", "--json")[1])
    assert all(row["spec"]["stem_stride"] == 2 for row in larger["networks"])
    assert all(row["spec"]["blocks_per_stage"] == [1, 1, 2] for row in larger["networks"])
    assert "at 96 pixels" in run(capsys, "design", "--image-size", 96, "--max-params", "50k", "--top", 1)[1]
    assert "pixels, far" not in run(capsys, "design", "--max-params", "50k", "--top", 1)[1]
    r5 = network("r5")
    for row in json.loads(run(capsys, "design", "--near", "r5", "--json")[1])["networks"]:
        spec = row["spec"]
        assert (spec["family"], spec["se_reduction"]) == ("resnet", 16)
        assert all(abs(ours - theirs) <= theirs / 4 for ours, theirs in zip(spec["widths"], r5.widths, strict=True))
        assert all(abs(ours - 3) <= 1 for ours in spec["blocks_per_stage"])


def test_cost_of_a_recipes_name_is_its_networks(capsys):
    code, out, _ = run(capsys, "cost", "speed-cpu", "--json")
    assert code == 0
    assert json.loads(out)["params"] == 1_971_352


def test_a_run_folder_inside_the_images_is_refused(capsys, tmp_path, tiny_recipe):
    for name in ("ant", "bee"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{number}.png")
    for more in ([], ["--seeds", 2]):
        words = ["train", tiny_recipe, "--data", tmp_path / "set", "--out", tmp_path / "set" / "run", *more]
        code, _, err = run(capsys, *words)
        assert code == 2
        assert "lies inside the images" in err
        assert not (tmp_path / "set" / "run").exists()


def test_moved_images_are_named_with_data(copy, capsys, tmp_path, digits_npz):
    moved = tmp_path / "moved.npz"
    moved.write_bytes(digits_npz.read_bytes())
    copy.update(source=str(tmp_path / "gone.npz"), status="running")
    for verb in ("evaluate", "test", "resume"):
        code, _, err = run(capsys, verb, copy.folder)
        assert code == 4
        assert "Name the place with --data" in err
    assert run(capsys, "resume", copy.folder, "--data", moved)[0] == 0
    assert copy.info["source"] == str(moved)
    assert run(capsys, "evaluate", copy.folder)[0] == 0


def test_a_lost_bundle_is_made_again(copy, capsys):
    before = (copy.bundle / "model.safetensors").read_bytes()
    shutil.rmtree(copy.bundle)
    assert run(capsys, "evaluate", copy.folder)[0] == 2
    assert run(capsys, "resume", copy.folder)[0] == 0
    assert (copy.bundle / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(("limit", "code"), [("11173962", 0), ("11173961", 3), ("5M", 3), (None, 0)])
def test_cost_is_a_gate_where_a_limit_is_given(limit, code, capsys):
    words = ["cost", "r1-baseline", *(["--max-params", limit] if limit else [])]
    found, out, _ = run(capsys, *words)
    assert found == code
    assert "11,173,962" in out
    assert ("within budget" in out) == (limit == "11173962")


def test_list_names_every_network_and_recipe(capsys):
    _, out, _ = run(capsys, "list", "--json")
    value = json.loads(out)
    assert {"r1-baseline", "r2-7", "r3", "r4-lighter", "r5", "r5-start", "resnet-8", "wrn-28-10"} <= {
        row["name"] for row in value["networks"]
    }
    assert "speed-cpu" in value["recipes"]
    _, out, _ = run(capsys, "list")
    line = next(line for line in out.splitlines() if line.startswith("r5-start "))
    assert line.split()[1] == "1,092,650"


def test_doctor(capsys):
    code, out, _ = run(capsys, "doctor", "--json")
    value = json.loads(out)
    assert code == 0
    assert value["folders"]["cache"]["writable"]
    assert value["extras"]["digits"]
    code, out, _ = run(capsys, "doctor")
    assert "torch" in out


def test_the_whole_path(capsys, tmp_path, tiny_recipe, digits_npz, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(
        capsys, "train", tiny_recipe, "--data", digits_npz, "--set", "train.epochs=1", "--device", "cpu"
    )
    assert (code, out) == (0, "runs/tiny-1\n")
    assert "within budget" in err
    assert "epoch 1/1" in err
    code, out, _ = run(capsys, "train", tiny_recipe, "--data", digits_npz, "--set", "train.epochs=1", "--json")
    assert json.loads(out)["run"] == "runs/tiny-2"
    code, out, _ = run(capsys, "evaluate", "runs/tiny-1", "--json")
    assert json.loads(out)["split"] == "val"
    code, out, err = run(capsys, "test", "runs/tiny-1")
    assert code == 0
    assert "test accuracy" in out
    assert "opening number 1 of this test set" in out
    code, again, err = run(capsys, "test", "runs/tiny-1")
    assert again == out
    assert "this is the receipt" in err
    code, _, err = run(capsys, "train", tiny_recipe, "--data", digits_npz, "--out", "runs/tiny-1")
    assert code == 2
    assert "holds something already. Continue it with `resfit resume runs/tiny-1`" in err


def test_seeds_are_judged_one_by_one_and_their_mean_is_given(capsys, tmp_path, tiny_recipe, digits_npz):
    out = tmp_path / "seeds"
    words = ["train", tiny_recipe, "--data", digits_npz, "--out", out, "--seeds", 2, "--set", "train.epochs=1"]
    assert run(capsys, *words)[0] == 0
    for verb, split in (("evaluate", "val"), ("test", "test")):
        code, printed, _ = run(capsys, verb, out, "--json")
        value = json.loads(printed)
        assert (code, value["split"]) == (0, split)
        alone = [json.loads(run(capsys, verb, out / f"seed-{seed}", "--json")[1]) for seed in (0, 1)]
        assert [seed["run"] for seed in value["seeds"]] == [one["run"] for one in alone]
        accuracies = [one["accuracy"] for one in alone]
        assert [seed["accuracy"] for seed in value["seeds"]] == accuracies
        assert value["accuracy"]["mean"] == pytest.approx(sum(accuracies) / 2)
        half = 12.7062 * abs(accuracies[0] - accuracies[1]) / 2  # t of one degree of freedom, std / sqrt(2)
        assert value["accuracy"]["interval"][1] == pytest.approx(sum(accuracies) / 2 + half)
        code, printed, err = run(capsys, verb, out)
        assert printed.splitlines()[2].startswith(f"{split} accuracy {value['accuracy']['mean']:.2%} ± ")
        assert err.count("this is the receipt") == (2 if verb == "test" else 0)
    assert [json.loads((out / f"seed-{n}" / "test.json").read_text())["opening"] for n in (0, 1)] == [1, 2]
    for lost, message in ((out / "seed-1", "seed-1: has not finished"), (out, "its seeds have not all finished")):
        (lost / "summary.json").unlink()
        for verb in ("evaluate", "test"):
            code, printed, err = run(capsys, verb, out)
            assert (code, printed) == (2, "")
            assert message in err


class TestPredict:
    @pytest.fixture
    def photos(self, tmp_path, digit_arrays):
        folder = tmp_path / "photos"
        folder.mkdir()
        for number in range(5):
            Image.fromarray(digit_arrays[0][number]).resize((40 + number, 50)).save(folder / f"{number}.png")
        return folder

    def test_files_and_folders(self, copy, photos, capsys, tmp_path):
        out = tmp_path / "out.csv"
        code, printed, err = run(capsys, "predict", copy.folder, photos, photos / "3.png", "-o", out)
        assert (code, printed) == (0, "")
        rows = list(csv.reader(out.read_text().splitlines()))
        assert rows[0] == ["ID", "Labels"]
        assert [row[0] for row in rows[1:]] == [str(photos / f"{n}.png") for n in range(5)] + [str(photos / "3.png")]
        assert {row[1] for row in rows[1:]} <= {"0", "1", "2"}
        assert rows[4][1] == rows[6][1]
        assert "confidence" in err
        assert "val" in err

    def test_stdout_and_names(self, copy, photos, capsys):
        _, out, _ = run(capsys, "predict", copy.folder / "bundle", photos / "0.png", "--names")
        assert out.splitlines()[0] == "ID,Labels"
        assert out.splitlines()[1].startswith(str(photos / "0.png") + ",")

    def test_several_runs_are_averaged_and_their_params_summed(self, copy, photos, capsys, tmp_path):
        other = shutil.copytree(copy.folder, tmp_path / "other")
        code, out, _ = run(capsys, "predict", copy.folder, other, photos, "--json")
        value = json.loads(out)
        assert code == 0
        assert value["n"] == 5
        assert f"{2 * copy.summary['params']:,} / 5,000,000 params" in value["budget"]
        assert sum(value["class_shares"].values()) == pytest.approx(1, abs=0.01)

    @pytest.fixture
    def pickled(self, tmp_path, digit_arrays):
        """Write the competition's file: rows of 3072 bytes, all red, then green, then blue, as CIFAR has them."""

        def write(name: str, **more: object) -> Path:
            images = digit_arrays[0][:4].repeat(4, axis=1).repeat(4, axis=2)
            rows = np.stack([images] * 3, axis=1).reshape(4, 3072)
            (tmp_path / name).write_bytes(pickle.dumps({b"data": rows} | {k.encode(): v for k, v in more.items()}))
            return tmp_path / name

        return write

    def test_competition_pickle_with_ids(self, copy, capsys, pickled, photos, digit_arrays, tmp_path):
        path, out = pickled("cifar_test_nolabel.pkl", ids=np.array([7, 3, 9, 1])), tmp_path / "out.csv"
        for number in range(4):
            big = Image.fromarray(digit_arrays[0][number].repeat(4, axis=0).repeat(4, axis=1))
            big.save(photos / f"{number}.png")
        assert run(capsys, "predict", copy.folder, path, "-o", out)[0] == 0
        _, as_files, _ = run(capsys, "predict", copy.folder, *(photos / f"{n}.png" for n in range(4)))
        labels = [line.rpartition(",")[2] for line in as_files.splitlines()[1:]]
        assert out.read_text() == "ID,Labels\n" + "".join(f"{i},{k}\n" for i, k in zip("7391", labels, strict=True))

    def test_competition_pickle_of_data_alone_is_numbered_from_0(self, copy, capsys, pickled):
        _, out, _ = run(capsys, "predict", copy.folder, pickled("cifar_test_nolabel.pkl"))
        assert [row.split(",")[0] for row in out.splitlines()] == ["ID", "0", "1", "2", "3"]

    @pytest.mark.parametrize("form", ["{}", "{}.png"])
    def test_a_sample_may_name_files_without_folder_or_suffix(self, copy, capsys, photos, digit_arrays, tmp_path, form):
        for number in range(3):
            Image.fromarray(digit_arrays[0][number]).save(photos / f"{number + 7}.png")
        files = [photos / f"{number + 7}.png" for number in range(3)]
        _, ours, _ = run(capsys, "predict", copy.folder, *files)
        labels = [line.rpartition(",")[2] for line in ours.splitlines()[1:]]
        sample = tmp_path / "sample.csv"
        sample.write_text("id,label\n" + "".join(f"{form.format(i)},0\n" for i in (9, 7, 8)))
        code, out, _ = run(capsys, "predict", copy.folder, *files, "--sample", sample, "-o", "-")
        assert code == 0
        wanted = zip((9, 7, 8), (labels[2], labels[0], labels[1]), strict=True)
        assert out == "id,label\n" + "".join(f"{form.format(i)},{label}\n" for i, label in wanted)

    def test_a_parent_of_seeds_stands_for_its_runs(self, copy, capsys, pickled, tmp_path):
        parent = tmp_path / "parent"
        for seed in range(2):
            shutil.copytree(copy.folder, parent / f"seed-{seed}")
        (parent / "seeds.json").write_text("{}")
        code, out, err = run(capsys, "predict", parent, pickled("a.pkl"), "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["runs"] == [str(parent / f"seed-{seed}") for seed in range(2)]

    def test_a_sample_gives_header_and_order(self, copy, capsys, pickled, tmp_path):
        path, out, sample = pickled("a.pkl", ids=[7, 3, 9, 1]), tmp_path / "out.csv", tmp_path / "sample.csv"
        _, ours, _ = run(capsys, "predict", copy.folder, path)
        by_id = dict(line.split(",") for line in ours.splitlines()[1:])
        sample.write_text("\ufeffid,label\r\n1,0\r\n3,0\r\n\r\n7,0\r\n9,0\r\n")
        assert run(capsys, "predict", copy.folder, path, "-o", out, "--sample", sample)[0] == 0
        assert out.read_text() == "id,label\n" + "".join(f"{i},{by_id[i]}\n" for i in "1379")
        out.unlink()
        for text, message in {
            "ID,Labels\n7,0\n8,0\n3,0\n1,0\n": "line 3 has id '8', which is no image of ours",
            "ID,Labels\n7,0\n7,0\n3,0\n1,0\n": "line 3 has id '7', which is no image of ours, or a second time",
            "ID,Labels\n7,0\n3,0\n1,0\n": "does not have id '9'",
            "7,0\n3,0\n9,0\n1,0\n": "its first line is 7,0, not a header of two names",
            "ID\n7\n": "its first line is ID, not a header of two names",
            "": "its first line is nothing",
        }.items():
            sample.write_text(text)
            code, _, err = run(capsys, "predict", copy.folder, path, "-o", out, "--sample", sample)
            assert code == 4
            assert message in err
            assert err.count("\n") == 1
            assert not out.exists()

    def test_row_numbers_of_two_arrays_would_repeat(self, copy, capsys, pickled, digits_npz, tmp_path):
        for words in ([pickled("a.pkl"), pickled("b.pkl")], [pickled("c.pkl", ids=[5, 6, 5, 8])]):
            code, out, err = run(capsys, "predict", copy.folder, *words, "-o", tmp_path / "out.csv")
            assert (code, out) == (4, "")
            assert "is taken by an image of" in err
            assert not (tmp_path / "out.csv").exists()

    def test_images_that_cannot_be_read_leave_no_csv(self, copy, photos, capsys, tmp_path):
        (photos / "9.png").write_bytes((photos / "1.png").read_bytes()[:60])
        code, _, err = run(capsys, "predict", copy.folder, photos, "-o", tmp_path / "out.csv")
        assert code == 4
        assert str(photos / "9.png") in err
        assert not (tmp_path / "out.csv").exists()

    def test_what_is_read_is_never_overwritten(self, copy, photos, capsys, tmp_path):
        photo = photos / "0.png"
        before = photo.read_bytes()
        sample = tmp_path / "sample.csv"
        sample.write_text(f"ID,Labels\n{photo},0\n")
        for out in (photo, sample):
            code, _, err = run(capsys, "predict", copy.folder, photo, "-o", out, "--sample", sample)
            assert code == 2
            assert "would destroy it" in err
        assert photo.read_bytes() == before
        code, _, err = run(capsys, "predict", copy.folder, photo, "-o", photos.parent)
        assert code == 2
        assert "is a folder" in err

    def test_a_device_is_written_and_not_replaced(self, copy, photos, capsys, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
            assert run(capsys, "predict", copy.folder, photos / "0.png", "-o", pipe)[0] == 0
            text, _ = reader.communicate(timeout=20)
        assert text.startswith("ID,Labels\n")
        assert pipe.is_fifo()

    def test_json_without_a_file_holds_the_predictions(self, copy, photos, capsys):
        _, out, _ = run(capsys, "predict", copy.folder, photos, "--json")
        rows = json.loads(out)["predictions"]
        assert [row["ID"] for row in rows] == [str(photos / f"{n}.png") for n in range(5)]

    def test_images_are_missing(self, copy, capsys):
        code, _, err = run(capsys, "predict", copy.folder)
        assert code == 2
        assert "no images given" in err

    def test_other_classes_are_refused(self, copy, photos, capsys, tmp_path):
        other = Run(shutil.copytree(copy.folder, tmp_path / "other"))
        config = json.loads((other.bundle / "config.json").read_text())
        (other.bundle / "config.json").write_text(json.dumps(config | {"class_names": ["a", "b", "c"]}))
        code, _, err = run(capsys, "predict", copy.folder, other.folder, photos)
        assert code == 2
        assert "knows other classes" in err

    @pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
    def test_a_damaged_bundle_is_one_line(self, copy, photos, capsys, file):
        path = copy.bundle / file
        path.write_bytes(path.read_bytes()[:100])
        code, _, err = run(capsys, "predict", copy.folder, photos)
        assert code == 2
        assert "the bundle cannot be read" in err
        assert err.count("\n") == 1


def test_unexpected_errors_are_one_line_unless_debug_is_given(capsys, monkeypatch):
    def broken(*args):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("resfit.doctor.examine", broken)
    code, _, err = run(capsys, "doctor")
    assert code == 1
    assert err == "resfit: unexpected RuntimeError: first second. Run it again with --debug to see where.\n"
    with pytest.raises(RuntimeError):
        main(["doctor", "--debug"])


def test_out_of_memory_is_a_resource(capsys, monkeypatch):
    def full(*args):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr("resfit.doctor.examine", full)
    code, _, err = run(capsys, "doctor")
    assert code == 6
    assert "train.batch_size" in err


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m resfit list | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""


def test_the_live_line_on_a_real_terminal(tiny_recipe, digits_npz, tmp_path):
    leader, follower = pty.openpty()
    words = ["train", str(tiny_recipe), "--data", str(digits_npz), "--out", str(tmp_path / "run")]
    command = [sys.executable, "-m", "resfit", *words, "--set", "train.epochs=30"]
    process = subprocess.Popen(command, stderr=follower, stdout=subprocess.DEVNULL)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other side has closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait() == 0
    text = shown.decode()
    assert " images/s  " in text
    assert "left" in text
    assert "\r\x1b[2K[" in text
    assert "epoch 30/30" in text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
def test_an_error_of_the_disk_that_nobody_caught_is_one_line_and_exit_6(number, capsys, monkeypatch):
    def fail(a):
        raise OSError(number, os.strerror(number), "/place/file")

    monkeypatch.setattr("resfit.verbs.networks.do_list", fail)
    assert main(["list"]) == 6
    err = capsys.readouterr().err
    assert err == f"resfit: /place/file: {os.strerror(number)}. See to the disk and its rights, and run it again.\n"
