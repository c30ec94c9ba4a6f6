"""push and pull against a Hub on loopback that speaks its protocol; what does not arrive whole is not put in place."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hubserver import TOKEN, Hub
from resfit.cli import main
from resfit.errors import MissingExtraError, UsageError
from resfit.evaluation.bundle import load_bundle
from resfit.evaluation.holdout import test as open_test
from resfit.runs import Run
from resfit.shipping.hub import find_place, pull, push

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface-hub's own upload

BESIDE = {"README.md", "test.json", ".eval_results/test.yaml"}


@pytest.fixture(scope="module")
def tested(tmp_path_factory, trained):
    """A finished run whose test split has been read."""
    folder = tmp_path_factory.mktemp("tested") / "run"
    shutil.copytree(trained.folder, folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "STATE"):
            patch.setenv(f"RESFIT_{name}", str(folder.parent / name))
        open_test(folder, device="cpu")
    return Run(folder)


@pytest.fixture
def hub(need, monkeypatch, tmp_path):
    """The Hub, and a person who is logged in to it in an empty folder."""
    need("huggingface_hub")
    from huggingface_hub import constants

    server = Hub()
    for name, text in {"HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf")}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield server
    server.shutdown()
    server.server_close()


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_line(capsys, *words: object) -> tuple[int, str]:
    code = main([str(word) for word in words])
    err = capsys.readouterr().err
    last = err.splitlines()[-1]
    assert last.startswith("resfit: ")
    assert last.isprintable()
    return code, last


def test_what_is_pushed_comes_back_by_the_command_line(hub, tested, tmp_path):
    """In processes of their own, as a person would: nothing is patched there."""
    env = dict(os.environ) | {"HF_HUB_DISABLE_XET": "1"}

    def resfit(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "resfit", *map(str, words)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True)

    pushed = resfit("push", tested.folder, "alice/digits", "--dataset", "alice/handwritten")
    assert hub.repos["alice/digits"]["private"]
    sha, there = hub.files("alice/digits")
    assert there.keys() == {"model.safetensors", "config.json", *BESIDE, ".gitattributes"}
    assert f"{hub.url}/alice/digits\n" in pushed.stdout
    assert "private" in pushed.stdout
    for name, data in there.items():
        assert name == ".gitattributes" or f"{name:<23}  {len(data):>12,} bytes" in pushed.stderr
    pulled = resfit("pull", "hf://alice/digits@main")
    folder = Path("digits")
    assert files_below(folder) == {name: data for name, data in there.items() if name != ".gitattributes"}
    assert sorted(os.listdir()) == ["digits"]  # nothing else is left
    receipt = json.loads(tested.receipt_file.read_text())
    assert f"test accuracy {receipt['accuracy']:.2%}" in pulled.stdout
    assert f"{tested.info['params']:,} parameters, 3 classes" in pulled.stdout
    assert sha in pulled.stdout
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)
    ours, theirs = (load_bundle(place, "cpu").probs(images) for place in (tested.folder, folder))
    np.testing.assert_array_equal(ours, theirs)
    assert b"alice/handwritten" in there["README.md"]
    local = f"local/{receipt['fingerprint']}".encode()
    assert not any(local in there[name] for name in ("README.md", ".eval_results/test.yaml"))
    assert local in (tested.bundle / "README.md").read_bytes()  # the run's own stays as it is


def test_a_dry_run_sends_nothing_and_a_second_push_takes_stale_files_away(hub, tested, capsys):
    value = push(tested.folder, "alice/digits", dry_run=True)
    assert {file["name"] for file in value["files"]} == {"model.safetensors", "config.json", "README.md", "test.json"}
    assert not hub.seen
    first = hub.create("alice/digits", {"model.onnx": b"of other weights", "notes.txt": b"the owner's own"})
    done = push(tested.bundle, "alice/digits")  # the bundle folder alone will do
    assert done["removed"] == ["model.onnx"]
    assert not done["private"]  # as its owner made it
    _, there = hub.files("alice/digits")
    assert there.keys() == {"notes.txt", "model.safetensors", "config.json", "README.md", "test.json"}
    assert len(hub.repos["alice/digits"]["commits"]) == 2
    value = pull("alice/digits")
    assert value["skipped"] == ["notes.txt"]
    assert not Path("digits/notes.txt").exists()
    assert one_line(capsys, "pull", f"alice/digits@{first}", "-o", "older")[0] == 4
    assert push(tested.folder, "bob/new", public=True)["private"] is False


def test_mistakes_of_a_push(hub, tested, trained, tmp_path, capsys, monkeypatch):
    shutil.copytree(trained.folder, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert one_line(capsys, "push", run.folder, "alice/x", "--dataset", "a/b")[1].endswith("or leave it out.")
    run.summary_file.unlink()
    for words, code, message in (
        (["push", run.folder, "alice/x"], 2, "has not finished"),
        (["push", tmp_path / "nowhere", "alice/x"], 2, "is not a run folder"),
        (["push", tested.folder, "x"], 2, "x: is no repository's name"),
        (["push", tested.folder, "alice/x@main"], 2, "names a revision"),
        (["push", tested.folder, "../x"], 2, "is no repository's name"),
    ):
        found, line = one_line(capsys, *words)
        assert (found, message in line) == (code, True), line
    assert not hub.seen
    hub.wrong["commit"] = 403
    assert one_line(capsys, "push", tested.folder, "alice/x")[0] == 2
    hub.wrong["commit"] = 500
    assert one_line(capsys, "push", tested.folder, "alice/x")[0] == 6
    assert hub.files("alice/x")[1].keys() == {".gitattributes"}  # all or nothing
    hub.wrong["commit"] = 412
    assert "changed by another" in one_line(capsys, "push", tested.folder, "alice/x")[1]
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    code, line = one_line(capsys, "push", tested.folder, "alice/y")
    assert (code, "alice/y" in line) == (2, True)
    monkeypatch.delenv("HF_TOKEN")
    code, line = one_line(capsys, "push", tested.folder, "alice/y")
    assert (code, "not logged in to the Hub" in line) == (2, True)
    assert "alice/y" not in hub.repos


def test_mistakes_of_a_pull_leave_nothing(hub, tested, capsys, monkeypatch):
    push(tested.folder, "alice/digits")
    hub.create("bob/other", {"pytorch_model.bin": b"a pickle", "config.json": b"{}"})
    bundle = hub.files("alice/digits")[1]
    weights = bundle["model.safetensors"]
    config = json.loads(bundle["config.json"])
    config["spec"]["widths"] = [100_000, 100_000]
    hub.create("bob/bomb", bundle | {"config.json": json.dumps(config).encode()})
    hub.create("bob/cut", bundle | {"model.safetensors": weights[:-4]})
    hub.create("bob/receipt", bundle | {"test.json": b'{"accuracy": "\\u001b[31m"}'})
    for name, mark in (("bob/escape", {"tta": "\x1b]0;owned\x07"}), ("bob/name", {"name": "\x1b[2J\u202ea"})):
        marked = json.loads(bundle["config.json"]) | mark
        hub.create(name, bundle | {"config.json": json.dumps(marked).encode()})
    for words, code, message in (
        (["alice/nothing"], 2, "is not on the Hub"),
        (["alice/digits@v9"], 2, "has no revision v9"),
        (["alice/digits/x"], 2, "is no repository's name"),
        (["bob/other"], 4, "has no model.safetensors"),
        (["bob/bomb"], 4, "describes a larger network than model.safetensors holds"),
        (["bob/cut"], 4, "bob/cut: holds no bundle that could be used"),
        (["bob/receipt"], 4, "test.json is no receipt"),
        (["bob/escape"], 4, "x1b]0;owned"),
    ):
        found, line = one_line(capsys, "pull", *words)
        assert (found, message in line) == (code, True), line
        assert not os.listdir()
    hub.spoil["model.safetensors"] = bytes([weights[0]]) + weights[1:-1] + bytes([weights[-1] ^ 1])
    code, line = one_line(capsys, "pull", "alice/digits")
    assert (code, "model.safetensors is not what the Hub says it is" in line) == (4, True)
    hub.spoil.clear()
    Path("full").mkdir()
    (Path("full") / "mine.txt").write_text("mine")
    assert one_line(capsys, "pull", "alice/digits", "-o", "full")[0] == 2
    assert files_below(Path()) == {"full/mine.txt": b"mine"}
    assert main(["pull", "bob/name", "-o", "named"]) == 0
    out = capsys.readouterr().out
    assert "\\x1b[2J\\u202ea of bob/name" in out
    assert out.replace("\n", "").isprintable()
    monkeypatch.delenv("HF_TOKEN")
    assert "log in" in one_line(capsys, "pull", "alice/digits")[1]  # it is private


def test_no_network_no_extra_and_offline(hub, tested, capsys, monkeypatch):
    from huggingface_hub import close_session, constants

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    for words in (["pull", "alice/digits"], ["push", tested.folder, "alice/digits"]):
        code, line = one_line(capsys, *words)
        assert (code, "the Hub could not be reached" in line) == (6, True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()  # its hooks are made with it
    code, line = one_line(capsys, "pull", "alice/digits")
    assert (code, "HF_HUB_OFFLINE" in line) == (6, True)
    monkeypatch.undo()
    close_session()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'resfit\[hub\]'"):
        pull("alice/digits")
    with pytest.raises(MissingExtraError):
        push(tested.folder, "alice/digits")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a/b", ("a/b", None)),
        ("hf://a/b@v1.0", ("a/b", "v1.0")),
        ("https://huggingface.co/a/b-c.d/", ("a/b-c.d", None)),
        ("a/b@refs/pr/1", ("a/b", "refs/pr/1")),
        *(
            (wrong, None)
            for wrong in ("a", "", "a/", "/a", "a/..", "a/b/c", "a/b@", "a/b@../x", "a b/c", "a/b\n", "a/b\x1b")
        ),
    ],
)
def test_names_of_repositories(text, place):
    if place is None:
        with pytest.raises(UsageError, match="is no repository's name") as caught:
            find_place(text)
        assert str(caught.value).isprintable()
    else:
        found = find_place(text)
        assert (found.repo, found.revision) == place
