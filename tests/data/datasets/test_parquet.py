import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.datasets import parquet
from pipeline.data.store import Store
from pipeline.errors import ParamsError, PipelineError
from tests.data.datasets.originals import jpeg, picture, png

MAPPING = {"image": "image", "label": "label"}
FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def encoded(number):
    """A PNG and a JPEG by turns."""
    return (png if number % 2 else jpeg)(picture(8, 10, number))


def write(path, numbers, features=None, **columns):
    """Rows with an image of each number and its parity as the label, as the hub's Parquet files have them."""
    made = pa.table(
        {
            "image": [{"bytes": encoded(number), "path": f"{number}.img"} for number in numbers],
            "label": pa.array([number % 2 for number in numbers], pa.int64()),
            **columns,
        }
    )
    if features:
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path, row_group_size=3)


def numbers_of(store, split):
    return sorted(int(name.removesuffix(".img")) for name in store.split(split).column("file_name"))


def prepare(tmp_path, inputs, **options):
    parquet.prepare(tmp_path / "toy", seed=0, inputs=str(inputs), **{"columns": MAPPING, **options})
    return Store(tmp_path / "toy")


def test_bytes_labels_and_splits_of_a_folder_of_the_hub(tmp_path):
    write(tmp_path / "data/train-00000-of-00002.parquet", range(5), FEATURES)
    write(tmp_path / "data/train-00001-of-00002.parquet", range(5, 9), FEATURES)
    write(tmp_path / "data/validation-00000-of-00001.parquet", range(9, 11), FEATURES)
    write(tmp_path / "data/test-00000-of-00001.parquet", range(11, 12), FEATURES)
    store = prepare(tmp_path, tmp_path / "data")
    assert store.info.classes == ["cat", "dog"]
    assert store.info.source == "data"
    wanted = {"train": range(9), "val": range(9, 11), "test": range(11, 12)}
    for split, numbers in wanted.items():
        part = store.split(split)
        assert [part.row(i)["image"] for i in range(len(part))] == [encoded(number) for number in numbers]
        assert part.column("label") == [number % 2 for number in numbers]
        assert part.column("image_id") == [f"{split}_{index:07d}" for index in range(len(numbers))]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000.parquet", "train"),
        ("dev_0.parquet", "val"),
        ("Validation/part.0.parquet", "val"),
        ("all.test.parquet", "test"),
        ("trainers.parquet", None),
        ("latest.parquet", None),
    ],
)
def test_the_split_of_a_file_is_a_word_of_its_name(name, split):
    assert parquet._split_of(parquet.Path(name)) == split


def test_one_file_is_dealt_out(tmp_path):
    write(tmp_path / "all.parquet", range(20))
    store = prepare(tmp_path, tmp_path / "all.parquet", val=0.2, test=0.3)
    assert store.info.counts == {"train": 10, "val": 4, "test": 6}
    assert sorted(number for split in store.info.counts for number in numbers_of(store, split)) == list(range(20))
    assert store.split("test").column("label").count(0) == 3


def test_patterns_say_which_files_are_what(tmp_path):
    write(tmp_path / "data/a0.parquet", range(3))
    write(tmp_path / "data/a1.parquet", range(3, 6))
    write(tmp_path / "data/b.parquet", range(6, 8))
    store = prepare(tmp_path, tmp_path / "data", splits={"train": "a*.parquet", "test": "b.parquet"}, val=0.5)
    assert store.info.counts == {"train": 3, "val": 3, "test": 2}
    assert numbers_of(store, "test") == [6, 7]


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        ({"train": "a*.parquet", "tset": "b"}, r"options\.splits\.tset: unknown key; did you mean 'test'"),
        ({"train": "c*.parquet"}, r"options\.splits\.train: no file like 'c\*\.parquet'"),
    ],
)
def test_wrong_patterns_are_refused(tmp_path, splits, told):
    write(tmp_path / "data/a0.parquet", range(3))
    with pytest.raises(PipelineError, match=told):
        prepare(tmp_path, tmp_path / "data", splits=splits)


def test_a_file_whose_name_tells_no_split_among_others_is_refused(tmp_path):
    write(tmp_path / "data/train.parquet", range(3))
    write(tmp_path / "data/more.parquet", range(3))
    with pytest.raises(PipelineError, match=r"more\.parquet: its name tells no split"):
        prepare(tmp_path, tmp_path / "data")


def test_patterns_for_one_file_are_refused(tmp_path):
    write(tmp_path / "all.parquet", range(3))
    with pytest.raises(ParamsError, match="is one file; fix: name its split column"):
        prepare(tmp_path, tmp_path / "all.parquet", splits={"train": "*"})


def test_images_beside_the_file_are_found_inside_of_its_folder_only(tmp_path):
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(encoded(0))
    names = [f"images/{number}.img" for number in range(4)]
    for number, name in enumerate(names):
        (tmp_path / "data" / name).write_bytes(encoded(number))
    made = pa.table({"image": names, "label": [0, 1, 0, 1]})
    pq.write_table(made, tmp_path / "data/all.parquet")
    for inputs in (tmp_path / "data", tmp_path / "data/all.parquet"):
        store = prepare(tmp_path, inputs, val=0.0, test=0.0)
        part = store.split("train")
        assert [part.row(i)["image"] for i in range(4)] == [encoded(number) for number in range(4)]
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg")):
        pq.write_table(pa.table({"image": [name], "label": [0]}), tmp_path / "data/all.parquet")
        with pytest.raises(PipelineError, match=r"all\.parquet:0 image: .* is not a file inside the folder"):
            prepare(tmp_path, tmp_path / "data", val=0.0, test=0.0)
    pq.write_table(pa.table({"image": ["images/9.img"], "label": [0]}), tmp_path / "data/all.parquet")
    with pytest.raises(PipelineError, match=r"images/9\.img image: cannot be read"):
        prepare(tmp_path, tmp_path / "data", val=0.0, test=0.0)


def test_boxes_of_the_hubs_object_detection_layout(tmp_path):
    objects = [
        {"bbox": [[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 10.0, 8.0]], "category": [1, 0], "area": [12.0, 80.0]},
        {"bbox": [], "category": [], "area": []},
    ]
    features = {
        "objects": {
            "bbox": {"feature": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}, "_type": "List"},
            "category": {"feature": {"names": ["wheel", "car"], "_type": "ClassLabel"}, "_type": "List"},
        }
    }
    write(tmp_path / "all.parquet", range(2), features, objects=objects)
    mapping = {"image": "image", "bbox": "objects.bbox", "category": "objects.category", "area": "objects.area"}
    store = prepare(tmp_path, tmp_path / "all.parquet", columns=mapping, box_format="xywh", val=0.0, test=0.0)
    assert store.info.classes == ["wheel", "car"]
    first, second = (store.split("train").read(index).objects for index in range(2))
    assert first.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 10, 8]]
    assert first.labels.tolist() == [1, 0]
    assert len(second) == 0


def test_memory_holds_a_few_rows_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROWS", 2)
    write(tmp_path / "all.parquet", range(10))
    rows = parquet._rows([tmp_path / "all.parquet"], tmp_path, ["label", "image"])
    assert [(where, row["label"]) for where, row in rows] == [(f"all.parquet:{i}", i % 2) for i in range(10)]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_damaged_file_is_one_line(tmp_path, share):
    write(tmp_path / "all.parquet", range(10))
    data = (tmp_path / "all.parquet").read_bytes()
    (tmp_path / "all.parquet").write_bytes(data[: int(share * len(data))])
    with pytest.raises(PipelineError, match=r"all\.parquet: not readable as Parquet \(.*\); fix: ") as caught:
        prepare(tmp_path, tmp_path / "all.parquet")
    assert "\n" not in str(caught.value)


def test_a_damaged_page_is_one_line(tmp_path):
    write(tmp_path / "all.parquet", range(10))
    data = bytearray((tmp_path / "all.parquet").read_bytes())
    data[4:400] = np.random.default_rng(0).bytes(396)
    (tmp_path / "all.parquet").write_bytes(data)
    with pytest.raises(PipelineError, match=r"all\.parquet:0"):
        prepare(tmp_path, tmp_path / "all.parquet", val=0.0, test=0.0)


def test_a_file_that_lacks_a_column_is_named(tmp_path):
    write(tmp_path / "data/train-0.parquet", range(3), other=[1, 2, 3])
    write(tmp_path / "data/train-1.parquet", range(3))
    with pytest.raises(PipelineError, match=r"train-1\.parquet: no column 'other', which other files have"):
        prepare(tmp_path, tmp_path / "data", columns={**MAPPING, "target": "other"}, val=0.0, test=0.0)


def test_an_address_is_refused_without_its_secrets(tmp_path):
    address = "https://me:secret@example.org/a.parquet?token=secret"
    message = r"toy\.inputs: no path \(https://example\.org/a\.parquet\?\.\.\.\); fix: copy it to this machine"
    with pytest.raises(ParamsError, match=message):
        prepare(tmp_path, address)


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(PipelineError, match=r"datasets\.toy\.inputs: no Parquet file at"):
        prepare(tmp_path, tmp_path / "nothing")


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    write(tmp_path / "all.parquet", range(12))
    stores = []
    for name in ("a/toy", "b/toy"):
        parquet.prepare(tmp_path / name, seed=3, inputs=str(tmp_path / "all.parquet"), columns=MAPPING)
        stores.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert stores[0] == stores[1]
