"""Hugging Face's parquet: its forms are one set, only what is asked for is read, and without pyarrow exit 5."""

import json
import sys

import numpy as np
import pytest

from resfit.cli import main
from resfit.data.images import PixelRule
from resfit.data.sources import load_split, load_splits, open_source
from resfit.errors import MissingExtraError

pa = pytest.importorskip("pyarrow")
RULE = PixelRule(8)
NAMES = ["wasp", "ant", "bee"]  # in the order of their numbers, which is none of the alphabet


@pytest.fixture
def table(make):
    """Return a function: a table of images `rows`, in Hugging Face's form unless told otherwise."""

    def table(rows, image="image", label="label", names=NAMES, form="struct", labels=None):
        data = [make.encode(make.noise(i)) for i in rows]
        if form == "struct":
            column = pa.array([{"bytes": d, "path": f"{i}.png"} for i, d in zip(rows, data, strict=True)])
        else:
            column = pa.array(data, getattr(pa, form)())
        labels = [i % 3 for i in rows] if labels is None else labels
        found = pa.table({"extra": pa.array([0.5] * len(data)), image: column, label: labels})
        feature = {"names": names, "_type": "ClassLabel"}
        info = {"info": {"features": {image: {"_type": "Image"}, label: feature}}}
        return found.replace_schema_metadata({"huggingface": json.dumps(info)} if names else None)

    return table


def write(table, path, **options):
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def two(table, top):
    for n in range(2):
        write(table(range(20 * n, 20 * n + 20)), top / f"data-{n:05}-of-00002.parquet")
    return top


FORMS = {
    "one file": lambda table, top: write(table(range(40)), top / "set.parquet"),
    "row groups": lambda table, top: write(table(range(40)), top / "set.parquet", row_group_size=7),
    "binary": lambda table, top: write(table(range(40), form="binary"), top / "set.parquet"),
    "large binary": lambda table, top: write(table(range(40), form="large_binary"), top / "set.PARQUET"),
    "img": lambda table, top: write(table(range(40), "img", "fine_label"), top / "set.parquet"),
    "texts": lambda table, top: write(
        table(range(40), names=None, labels=[NAMES[i % 3] for i in range(40)]), top / "set.parquet"
    ),
    "categories": lambda table, top: write(
        table(range(40), names=None, labels=pa.array([NAMES[i % 3] for i in range(40)]).dictionary_encode()),
        top / "set.parquet",
    ),
    "several": lambda table, top: two(table, top),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_are_one_set(table, tmp_path, form, make):
    source = FORMS[form](table, tmp_path / "set")
    pixels = np.stack([make.noise(i) for i in range(40)])
    parts = load_splits(source, ("trainval", "test"), RULE)
    names = ("ant", "bee", "wasp") if form in ("texts", "categories") else tuple(NAMES)
    assert parts[0].class_names == names
    seen = set()
    for part in parts:
        for image, label, name in zip(part.images[:], part.labels, part.ids, strict=True):
            row = next(i for i in range(40) if (pixels[i].transpose(2, 0, 1) == image).all())
            assert names[label] == NAMES[row % 3]
            assert name.endswith(f":{row % 20 if form == 'several' else row}")
            seen.add(row)
    assert seen == set(range(40))
    assert "parquet file" in open_source(source).layout


@pytest.mark.parametrize("place", ["", "data", "plain_text", "folders"])
def test_splits_of_a_repository(table, tmp_path, place):
    shards = {"train-00000-of-00002": 0, "train-00001-of-00002": 1, "validation-00000-of-00001": 2, "test": 3}
    for name, number in shards.items():
        folder = name.split("-")[0] if place == "folders" else place
        write(table(range(20 * number, 20 * number + 20)), tmp_path / "hub" / folder / f"{name}.parquet")
    (tmp_path / "hub/README.md").write_text("---")
    (tmp_path / "hub/.cache/x").mkdir(parents=True)
    assert open_source(tmp_path / "hub").splits == ("train", "val", "test")
    assert [len(p) for p in load_splits(tmp_path / "hub", ("train", "val", "test"), RULE)] == [40, 20, 20]


def test_only_the_row_groups_asked_for_are_read(table, tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    path = write(table(range(60)), tmp_path / "set.parquet", row_group_size=10)
    listing = open_source(path).list_split("all")
    groups, columns, real = [], set(), pq.ParquetFile.iter_batches

    def watched(self, size, row_groups, wanted):
        groups.extend(row_groups)
        columns.update(wanted)
        return real(self, size, row_groups, wanted)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    assert [i for i, _ in listing.blobs([3, 4, 41])] == [3, 4, 41]
    assert (groups, columns) == ([0, 4], {"image"})


def test_a_folder_of_classes_beside_a_parquet_file(make, table, tmp_path):
    make.write_classes(tmp_path / "set", {"ant": 5, "bee": 5})
    write(table(range(9)), tmp_path / "set/embeddings.parquet")
    assert open_source(tmp_path / "set").layout == "class folders, 2 classes"


def test_an_overwritten_file_is_seen(table, tmp_path):
    path = write(table(range(30)), tmp_path / "set.parquet")
    before = load_split(path, "train", RULE).fingerprint
    write(table(range(1, 31)), path)
    assert load_split(path, "train", RULE).fingerprint != before


def test_without_pyarrow(table, tmp_path, monkeypatch, capsys):
    path = write(table(range(9)), tmp_path / "set.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'resfit\[parquet\]'"):
        open_source(path)
    assert main(["data", "info", str(path)]) == 5
    assert capsys.readouterr().err.count("\n") == 1
