import pytest

from pipeline.data.datasets import imagenette
from pipeline.data.store import Store
from pipeline.errors import PipelineError
from tests.data.datasets.originals import jpeg, picture, serve, tarred

IDS = list(imagenette.CLASSES)


def originals(inner):
    members = {f"{inner}/noisy_imagenette.csv": b"path,noisy_labels_0\n"}
    for label, wordnet_id in enumerate(IDS):
        for index in range(4):
            name = f"{inner}/train/{wordnet_id}/{wordnet_id}_{index}.JPEG"
            members[name] = jpeg(picture(12 + label, 16, 10 * label + index))
        members[f"{inner}/val/{wordnet_id}/ILSVRC2012_val_{label:08d}.JPEG"] = jpeg(picture(10, 10, 100 + label))
    return members


@pytest.mark.parametrize(
    ("size", "inner"), [("full", "imagenette2"), ("320px", "imagenette2-320"), ("160px", "imagenette2-160")]
)
def test_bytes_labels_and_splits_are_the_originals(tmp_path, cache, server, monkeypatch, size, inner):
    members = originals(inner)
    serve(server, monkeypatch, imagenette, {size: tarred(members, "w:gz")})
    imagenette.prepare(tmp_path / "nette", seed=0, size=size, val=0.25)
    store = Store(tmp_path / "nette")
    assert store.info.classes[:2] == ["tench", "English springer"]
    assert store.info.counts == {"train": 30, "val": 10, "test": 10}  # of 4 images of each class 3 and 1
    for split, official in (("train", "train"), ("val", "train"), ("test", "val")):
        part = store.split(split)
        for row in (part.row(position) for position in range(len(part))):
            assert row["file_name"].startswith(f"{official}/{IDS[row['label']]}/")
            assert row["image"] == members.pop(f"{inner}/{row['file_name']}")
    assert list(members) == [f"{inner}/noisy_imagenette.csv"]
    assert sorted(store.split("val").column("label")) == list(range(10))


def test_a_missing_class_folder_is_named(tmp_path, cache, server, monkeypatch):
    members = {name: content for name, content in originals("imagenette2-160").items() if "n03888257" not in name}
    serve(server, monkeypatch, imagenette, {"160px": tarred(members, "w:gz")})
    with pytest.raises(PipelineError, match="n03888257"):
        imagenette.prepare(tmp_path / "nette", seed=0)


def test_a_damaged_photograph_is_named_and_skipped_where_asked(tmp_path, cache, server, monkeypatch):
    members = originals("imagenette2-160")
    name = "imagenette2-160/train/n01440764/n01440764_2.JPEG"
    members[name] = members[name][: len(members[name]) // 2]
    serve(server, monkeypatch, imagenette, {"160px": tarred(members, "w:gz")})
    with pytest.raises(PipelineError, match=r"train/n01440764/n01440764_2\.JPEG image: "):
        imagenette.prepare(tmp_path / "nette", seed=0)
    imagenette.prepare(tmp_path / "nette", seed=0, on_error="skip")
    counts = Store(tmp_path / "nette").info.counts
    assert counts["train"] + counts["val"] == 39
