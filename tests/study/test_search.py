"""`search` as a user runs it: real workers on real images, killed and stopped, on SQLite and on a real PostgreSQL."""

import contextlib
import glob
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from resfit.cli import main
from resfit.errors import UsageError
from resfit.models.families import cost
from resfit.recipefile import load_recipe
from resfit.study import launch
from resfit.study.launch import _refuse_foreign, search
from resfit.study.space import load_space
from resfit.study.trials import finished, open_study, slot_of

SPACE = """
base = "digits"
[budget]
max_params = "6k"
[data]
image_size = 8
[train]
epochs = 2
batch_size = 32
[schedule]
warmup_epochs = 0.5
[search]
finalists = 2
seeds = 2
[vary]
"network.widths" = {low = 8, high = 32, step = 8}
"network.blocks_per_stage" = [[1, 1, 1], [1, 2, 1]]
"optim.lr" = {low = 0.01, high = 0.3, log = true}
"""


@pytest.fixture
def space(tmp_path):
    file = tmp_path / "tiny.toml"
    file.write_text(SPACE)
    return file


def command(space, data, out, *more):
    words = [
        sys.executable,
        "-m",
        "resfit",
        "search",
        str(space),
        "--data",
        str(data),
        "--out",
        str(out),
        *map(str, more),
    ]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children_of(process):
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return found.read_text().split() if found.exists() else []


@contextlib.contextmanager
def studies_of(url, space, data_mark):
    wanted = load_space(space)
    same = {"space": wanted.text(), "data": data_mark}
    with (
        open_study(url, wanted.name, same, wanted.search) as trials,
        open_study(url, f"{wanted.name}/rows", same, wanted.search) as rows,
    ):
        yield trials, rows


def fingerprint(out):
    return json.loads((out / "search.json").read_text())["fingerprint"]


def test_a_search_finds_a_winner_and_goes_on(space, digits_npz, tmp_path, capsys):
    out = tmp_path / "found"
    assert main(["search", str(space), "--data", str(digits_npz), "--trials", "4", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((out / "result.json").read_text())
    assert len(found["trials"]) == 4
    assert [row["n"] for row in found["rows"]] == [2, 2]
    assert all(row["params"] <= 6_000 for row in found["rows"])
    best = max(found["rows"], key=lambda row: row["mean"])
    assert found["winner"]["label"] == best["label"]
    assert found["winner"]["confirmed"]
    winner = load_recipe(out / "winner.toml")
    assert cost(winner.network).params == found["winner"]["params"]
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 2
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert not list(out.glob("trials/*/checkpoints"))  # the bundles have the weights

    before = {file: file.stat().st_mtime_ns for file in out.glob("trials/*/metrics.jsonl")}
    assert main(["search", str(space), "--data", str(digits_npz), "--trials", "5", "--out", str(out), "--json"]) == 0
    more = json.loads(capsys.readouterr().out)
    assert len(more["trials"]) == 5
    assert [row["n"] for row in more["rows"]] == [2, 2]
    assert more["trials"][:4] == found["trials"] or {t["slot"] for t in found["trials"]} < {
        t["slot"] for t in more["trials"]
    }
    assert len(before) == 4
    assert before.items() <= {file: file.stat().st_mtime_ns for file in out.glob("trials/*/metrics.jsonl")}.items()

    space.write_text(SPACE.replace("high = 32", "high = 40"))
    assert main(["search", str(space), "--data", str(digits_npz), "--trials", "5", "--out", str(out)]) == 2
    assert "has another space. Choose another --out or --storage" in capsys.readouterr().err


def test_one_at_a_time_prints_each_row_beside_its_claim(digits_npz, tmp_path, capsys):
    file = tmp_path / "rows.toml"
    file.write_text(
        'base = "digits"\n[data]\nimage_size = 8\n[train]\nepochs = 1\n[schedule]\nwarmup_epochs = 0\n'
        '[budget]\nmax_params = "80k"\n'
        '[search]\nmode = "one-at-a-time"\nseeds = 2\n[vary]\n"network.widths" = [[8, 8, 8], [8, 8, 16], [64, 64, 64]]\n'
    )
    out = tmp_path / "rows"
    assert main(["search", str(file), "--data", str(digits_npz), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "n = 2" in lines["network.widths=8,8,8"]
    assert "over budget: not trained" in lines["network.widths=64,64,64"]
    assert not (out / "winner.toml").exists()
    assert len(list((out / "rows").iterdir())) == 6


def test_mistakes_are_said_before_anything_is_made(space, digits_npz, tmp_path, capsys):
    out = tmp_path / "new"
    words = ["search", str(space), "--data", str(digits_npz), "--out", str(out)]
    for more, code, text in [
        (["--trials", "0"], 2, "--trials: must be at least 1"),
        (["--time-limit", "5"], 2, "'5' is not a time"),
        (["--set", "optim.lrr=1"], 2, "optim.lrr: no such key"),
        (["--storage", "nonsense"], 2, "is no address of a database"),
        (["--storage", "postgresql://x:secret@127.0.0.1:1/none"], 6, "database does not work"),
        (["--device", "tpu"], 6, "--device tpu"),
    ]:
        assert main([*words, *more]) == code
        err = capsys.readouterr().err
        assert text in err
        assert "secret" not in err
        assert len(err.strip().splitlines()) == 1
    assert not out.exists() or not any(out.iterdir())
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "photo.jpg").touch()
    with pytest.raises(UsageError, match="holds something already, and no search"):
        search(space, digits_npz, out=taken)
    begun = tmp_path / "begun"  # killed once its database was there, and before its plan was
    begun.mkdir()
    (begun / "study.db").touch()
    _refuse_foreign(begun)


class TestStopped:  # a class of its own, for another of pytest's workers
    def test_a_time_limit_stops_in_time_and_the_next_call_goes_on(self, space, digits_npz, tmp_path):
        out = tmp_path / "limited"
        settings = ["train.epochs=100000", "search.pruning=none"]
        started = time.monotonic()
        found = search(space, digits_npz, trials=1, out=out, time_limit=20, settings=settings)
        assert time.monotonic() - started < 60
        assert found["winner"] is None
        (rows,) = out.glob("trials/*/metrics.jsonl")
        epochs = len(rows.read_text().splitlines())
        search(space, digits_npz, trials=1, out=out, time_limit=20, settings=settings)
        assert len(rows.read_text().splitlines()) > epochs
        assert list(out.glob("trials/*/metrics.jsonl")) == [rows]

    def test_an_interrupt_stops_the_workers_and_says_how_to_go_on(self, space, digits_npz, tmp_path):
        out = tmp_path / "stopped"
        parent = command(space, digits_npz, out, "--set", "train.epochs=100000", "--set", "search.pruning=none")
        deadline = time.monotonic() + 60
        while not list(out.glob("trials/*/metrics.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.2)
        children = children_of(parent)
        parent.send_signal(signal.SIGINT)
        _, err = parent.communicate(timeout=60)
        assert parent.returncode == 130
        assert "the same command goes on" in err
        assert "Traceback" not in err
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


class TestKilled:  # a class of its own, for another of pytest's workers
    def test_workers_and_parent_killed_at_any_time(self, space, digits_npz, tmp_path):
        """Kill both workers and parent at random; the same command then ends with every trial once."""
        out, draw, wanted = tmp_path / "killed", random.Random(1), 6
        words = ["--trials", wanted, "--workers", 2]
        for number in range(4):  # reliability/searches.py has hundreds
            parent = command(space, digits_npz, out, *words)
            time.sleep(draw.uniform(4, 9))
            children = children_of(parent)
            victims = [parent.pid] if number % 2 else [int(pid) for pid in children]
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(1)
            parent.kill()
            parent.communicate()
        parent = command(space, digits_npz, out, *words)
        _, err = parent.communicate(timeout=200)
        assert parent.returncode == 0, err
        with studies_of(f"sqlite:///{out}/study.db", space, fingerprint(out)) as studies:
            for study, slots in zip(studies, (wanted, 4), strict=True):
                assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
                assert len(finished(study)) == slots
                ended = study.get_trials(states=(TrialState.COMPLETE,))
                assert max(Counter(map(slot_of, ended)).values()) == 1
        assert json.loads((out / "result.json").read_text())["winner"]["confirmed"]


class TestShared:  # a class of its own, for another of pytest's workers
    @pytest.fixture
    def postgres(self, tmp_path_factory, need):
        """A real PostgreSQL of its own on loopback; its address."""
        found = shutil.which("initdb") or next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))), None)
        if found is None:
            need("initdb")
        folder = Path(found).resolve().parent
        place = tmp_path_factory.mktemp("postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        prefix = []
        if os.geteuid() == 0:  # the server refuses to run as root
            prefix = ["runuser", "-u", "nobody", "--"]
            for parent in (place, *place.parents):
                if parent == Path("/"):
                    break
                with contextlib.suppress(PermissionError):
                    os.chmod(parent, os.stat(parent).st_mode | 0o055)
            shutil.chown(place, "nobody")
        data, options = place / "data", f"-p {port} -h 127.0.0.1 -k {place} -F"
        control = [*prefix, folder / "pg_ctl", "-D", data, "-w"]
        silent = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": place}
        subprocess.run([*prefix, folder / "initdb", "-D", data, "-A", "trust", "-U", "resfit"], **silent)
        subprocess.run([*control, "-o", options, "start"], **silent)
        yield f"postgresql://resfit@127.0.0.1:{port}/postgres"
        subprocess.run([*control, "-m", "immediate", "stop"], **silent)

    def test_two_machines_share_a_study_through_postgresql(self, space, digits_npz, tmp_path, postgres):
        """Two processes with folders of their own, as on two machines; one is killed with its workers, not started again."""
        words = ["--trials", 6, "--storage", postgres]
        here, there = (command(space, digits_npz, tmp_path / name, *words) for name in ("here", "there"))
        deadline = time.monotonic() + 60
        while not list((tmp_path / "there").glob("trials/*/run.json")) and time.monotonic() < deadline:
            time.sleep(0.1)
        there.kill()  # its worker notices, and frees its trial
        there.communicate()
        _, err = here.communicate(timeout=240)
        assert here.returncode == 0, err
        with studies_of(postgres, space, fingerprint(tmp_path / "here")) as (trials, rows):
            assert len(finished(trials)) == 6
            assert len(finished(rows)) == 4
            for study in (trials, rows):
                assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
            assert len({trial.user_attrs.get("worker") for trial in trials.trials} - {None}) >= 2
        psycopg = pytest.importorskip("psycopg")
        query = "select count(*) from pg_stat_activity where backend_type = 'client backend'"
        deadline = time.monotonic() + 10  # the server notices a closed connection a moment later
        with psycopg.connect(postgres, autocommit=True) as connection:
            while (left := connection.execute(query).fetchone()) != (1,) and time.monotonic() < deadline:
                time.sleep(0.1)
        assert left == (1,)  # this one


class TestRay:  # a class of its own, for another of pytest's workers
    def test_ray_runs_the_trials_of_a_study(self, space, digits_npz, tmp_path, capsys, need):
        """A real Ray on this machine: two turns at once."""
        need("ray")
        out = tmp_path / "cluster"
        space.write_text(SPACE.replace("finalists = 2", "finalists = 1"))  # each of Ray's turns imports torch anew
        child = command(space, digits_npz, out, "--trials", 2, "--engine", "ray", "--workers", 2, "--json")
        text, err = child.communicate(timeout=300)
        assert child.returncode == 0, err
        found = json.loads(text)
        assert len(found["trials"]) == 2
        assert found["winner"]["confirmed"]
        assert [row["n"] for row in found["rows"]] == [2]
        assert "each trial has" in err


class TestFullDisk:  # a class of its own, for another of pytest's workers
    def test_a_full_disk_under_the_database_is_one_line_and_the_study_goes_on(
        self, space, digits_npz, tmp_path, capsys, monkeypatch
    ):
        monkeypatch.setattr(launch, "FAULTS", 0)  # a database may be away for a moment: this one stays full
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk)], capture_output=True, text=True
        )
        if mounted.returncode:
            pytest.skip(f"no disk of its own can be mounted: {mounted.stderr.strip()}")
        space.write_text(
            SPACE.replace("epochs = 2", "epochs = 1").replace("finalists = 2\nseeds = 2", "finalists = 1\nseeds = 1")
        )
        url = f"sqlite:///{disk}/study.db"
        words = [
            "search",
            str(space),
            "--data",
            str(digits_npz),
            "--out",
            str(tmp_path / "found"),
            "--storage",
            url,
            "--trials",
        ]
        try:
            assert main([*words, "1"]) == 0
            with studies_of(url, space, fingerprint(tmp_path / "found")) as (trials, _):
                before = {slot: trial.values for slot, trial in finished(trials).items()}
            assert len(before) == 1
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(512)):
                    pass
            capsys.readouterr()
            assert main([*words, "2"]) == 6
            lines = capsys.readouterr().err.splitlines()
            assert lines[-1].startswith(f"resfit: {url}: the study's database does not work: ")
            assert "disk is full" in lines[-1]
            assert not any("Traceback" in line for line in lines)
            filler.unlink()
            assert main([*words, "2"]) == 0
            with studies_of(url, space, fingerprint(tmp_path / "found")) as (trials, _):
                assert before.items() < {slot: trial.values for slot, trial in finished(trials).items()}.items()
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
