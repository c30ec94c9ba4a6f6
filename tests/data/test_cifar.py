"""The four official forms, as folder, archive and name; damage, hostility and no network."""

import hashlib
import http.server
import pickle
import threading

import numpy as np
import pytest

from resfit.data import cifar, download
from resfit.data.images import PixelRule
from resfit.data.sources import load_split, open_source

RULE = PixelRule(32)
FORMS = ["cifar10_python", "cifar10_binary", "cifar100_python", "cifar100_binary"]


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


def unpack(top, members):
    for name, data in members.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return next(iter(top.iterdir()))


def check(source, form):
    test = load_split(source, "test", RULE)
    both = load_split(source, "trainval", RULE)
    classes = 100 if "100" in form else 10
    assert len(both.class_names) == classes
    assert both.class_names[3] == ("fine03" if classes == 100 else "cat")
    return both, test


def test_forms_and_places(make, form, tmp_path):
    members = getattr(make, form)()
    folder = unpack(tmp_path / "a", members)
    archive = make.tar_of(tmp_path / "renamed.tgz", members)
    zeros = [check(s, form)[0].fingerprint for s in (folder, tmp_path / "a", archive)]
    assert len(set(zeros)) == 1
    both, test = check(archive, form)
    number = 1 if "100" in form else 5
    assert (test.images.reshape(-1, 3072) == make.cifar_rows(number, len(test))).all()
    assert (both.labels[:20] % 10 == np.arange(20) % 10).all()
    assert both.images.dtype == np.uint8
    assert both.labels.dtype == np.int64
    assert open_source(str(archive)).splits == ("train", "test")


def test_python_and_binary_are_the_same_set(make, tmp_path):
    for kind in ("cifar10", "cifar100"):
        python = make.tar_of(tmp_path / "p.tar.gz", getattr(make, f"{kind}_python")())
        binary = make.tar_of(tmp_path / "b.tar.gz", getattr(make, f"{kind}_binary")())
        for split in ("trainval", "test"):
            a, b = load_split(python, split, RULE), load_split(binary, split, RULE)
            assert a.fingerprint == b.fingerprint
            assert (a.images[:] == b.images[:]).all()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_repickled_by_python_3(make, tmp_path, protocol):
    again = make.cifar10_python(pickler=make.modern_pickle(protocol))
    a = load_split(make.tar_of(tmp_path / "a.tar", again, "w"), "trainval", RULE)
    b = load_split(make.tar_of(tmp_path / "b.tar", make.cifar10_python(), "w"), "trainval", RULE)
    assert a.fingerprint == b.fingerprint


def test_train_reads_no_test_member(make, tmp_path):
    members = make.cifar10_python()
    members["cifar-10-batches-py/test_batch"] = b"rubbish"
    source = make.tar_of(tmp_path / "c.tar.gz", members)
    assert len(load_split(source, "train", RULE)) == 90
    assert len(load_split(source, "val", RULE)) == 10


def damaged(members, name, data):
    return {
        n: (data if n.endswith("/" + name) else d) for n, d in members.items() if data or not n.endswith("/" + name)
    }


def test_bad_members(make, tmp_path, one_line):
    python, binary, hundred = make.cifar10_python(), make.cifar10_binary(), make.cifar100_python()
    rows = make.cifar_rows(0, 5)
    pickled = make.modern_pickle(4)
    cases = [
        (python, "data_batch_3", None, "data_batch_3 is missing"),
        (python, "data_batch_3", python["cifar-10-batches-py/data_batch_3"][:-9], "truncated"),
        (python, "data_batch_3", pickled({"data": rows, "labels": [1]}), "5 images and 1 labels"),
        (python, "data_batch_3", pickled({"data": rows, "labels": [1, 2, 3, 4, 10]}), "outside 0..9"),
        (python, "data_batch_3", pickled({"data": rows, "labels": [1, 2, 3, 4, -1]}), "outside 0..9"),
        (python, "data_batch_3", pickled({"data": rows, "labels": [1, 2, 3, 4, 10**30]}), "outside 0..9"),
        (python, "data_batch_3", pickled({"data": rows}), "no list of labels"),
        (python, "data_batch_3", pickled({"data": rows[:, :9], "labels": [1] * 5}), "3072"),
        (binary, "data_batch_2.bin", binary["cifar-10-batches-bin/data_batch_2.bin"][:-1], "no whole number"),
        (hundred, "meta", None, "meta is missing"),
        (hundred, "meta", pickled({"fine_label_names": ["a"]}), "names 1 classes"),
    ]
    for number, (members, name, data, expected) in enumerate(cases):
        source = make.tar_of(tmp_path / f"{number}.tar.gz", damaged(members, name, data))
        message = one_line(load_split, source, "train", RULE)
        assert expected in message
        assert name in message
        assert str(source) in message


def test_hostile_batch(make, tmp_path, one_line):
    class Evil:
        def __reduce__(self):
            return (eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    members = damaged(make.cifar10_python(), "data_batch_1", pickle.dumps(Evil()))
    message = one_line(load_split, make.tar_of(tmp_path / "c.tar.gz", members), "train", RULE)
    assert "would run code" in message
    assert "eval" in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2", "w"])
def test_truncated_archives(make, tmp_path, one_line, mode):
    whole = make.tar_of(tmp_path / "whole.tar.gz", make.cifar10_python(), mode).read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for share in (0.1, 0.5, 0.9):
        cut.write_bytes(whole[: int(len(whole) * share)])
        assert str(cut) in one_line(load_split, cut, "train", RULE)


@pytest.fixture
def server(make, tmp_path, monkeypatch):
    """The official archive, from a server on this machine."""
    top = tmp_path / "www"
    top.mkdir()
    archive = make.tar_of(top / "cifar-10-python.tar.gz", make.cifar10_python())
    served = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, directory=str(top), **options)

        def log_message(self, *arguments):
            served.append(arguments)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        monkeypatch.setattr(cifar, "_OFFICIAL_URL", f"http://127.0.0.1:{running.server_address[1]}/")
        md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        monkeypatch.setattr(cifar, "_OFFICIAL_MD5", {"cifar10": md5, "cifar100": "0"})
        monkeypatch.chdir(tmp_path)
        yield served
        running.shutdown()
        thread.join()


def test_download_once(server, tmp_path, capsys):
    assert len(load_split("cifar10", "train", RULE)) == 90
    assert len(load_split("cifar10", "test", RULE)) == 20
    assert len(server) == 1
    assert "cifar-10-python.tar.gz" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "cache/downloads").iterdir()] == ["cifar-10-python.tar.gz"]


def test_wrong_checksum_leaves_nothing(server, tmp_path, one_line, monkeypatch):
    monkeypatch.setattr(cifar, "_OFFICIAL_MD5", {"cifar10": "0" * 32})
    assert "md5" in one_line(load_split, "cifar10", "train", RULE)
    assert list((tmp_path / "cache/downloads").iterdir()) == []


def test_missing_on_the_server(server, one_line):
    message = one_line(load_split, "cifar100", "train", RULE)
    assert "cifar-100-python.tar.gz" in message


def test_no_network_says_what_to_do(tmp_path, monkeypatch, one_line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cifar, "_OFFICIAL_URL", "http://127.0.0.1:9/")
    message = one_line(load_split, "cifar10", "train", RULE)
    for word in ("cifar10", "cifar-10-python.tar.gz", "./data", "RESFIT_DATA"):
        assert word in message


def test_found_locally(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download.urllib.request, "urlopen", None)
    (tmp_path / "data").mkdir()
    make.tar_of(tmp_path / "data/cifar-10-binary.tar.gz", make.cifar10_binary())
    assert len(load_split("cifar10", "test", RULE)) == 20
    unpack(tmp_path / "elsewhere", make.cifar100_python())
    monkeypatch.setenv("RESFIT_DATA", str(tmp_path / "elsewhere"))
    assert len(load_split("cifar100", "test", RULE)) == 300
