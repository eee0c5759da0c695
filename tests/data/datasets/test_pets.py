import json

import numpy as np
import pytest

from pipeline.data.datasets import pets
from pipeline.data.store import Store
from pipeline.errors import ParamsError, PipelineError
from tests.data.datasets.originals import jpeg, picture, png, serve, tarred

# class ids: Abyssinian 1, Bengal 6, Yorkshire Terrier 37
TRAINVAL = [f"{name}_{i}" for name in ("Abyssinian", "yorkshire_terrier") for i in range(1, 11)]
TEST = ["Abyssinian_201", "Bengal_7"]
CLASS_IDS = {"Abyssinian": 1, "yorkshire_terrier": 37, "Bengal": 6}


def trimap(index):
    """Background 2, border 3, foreground 1 that depends on the image."""
    values = np.full((15, 20), 2, np.uint8)
    values[3:12, 4:12] = 3
    values[4:11, 5 : 8 + index % 4] = 1
    return values


def head(name, box=(6, 5, 9, 8), species="cat"):
    x1, y1, x2, y2 = box
    return (
        f"<annotation><folder>OXIIIT</folder><filename>{name}.jpg</filename>"
        "<size><width>20</width><height>15</height><depth>3</depth></size><segmented>0</segmented>"
        f"<object><name>{species}</name><pose>Frontal</pose><truncated>0</truncated><occluded>0</occluded>"
        f"<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        "<difficult>0</difficult></object></annotation>"
    ).encode()


def listed(names):
    return "".join(f"{name} {CLASS_IDS[name.rpartition('_')[0]]} 1 1\n" for name in names).encode()


def originals():
    images, annotations = {"images/Abyssinian_101.mat": b"mat"}, {"annotations/README": b"..."}
    for index, name in enumerate(TRAINVAL + TEST):
        images[f"images/{name}.jpg"] = jpeg(picture(15, 20, index))
        annotations[f"annotations/trimaps/{name}.png"] = png(trimap(index))
        annotations[f"annotations/trimaps/._{name}.png"] = b"mac"
    for name in TRAINVAL[1:]:  # some have none
        annotations[f"annotations/xmls/{name}.xml"] = head(name)
    annotations["annotations/list.txt"] = b"#Image CLASS-ID SPECIES BREED ID\n" + listed(TRAINVAL + TEST)
    annotations["annotations/trainval.txt"], annotations["annotations/test.txt"] = listed(TRAINVAL), listed(TEST)
    return images, annotations


def prepare(tmp_path, server, monkeypatch, images, annotations, **options):
    archives = {"images": tarred(images, "w:gz"), "annotations": tarred(annotations, "w:gz")}
    serve(server, monkeypatch, pets, archives)
    pets.prepare(tmp_path / "pets", seed=0, **options)
    return Store(tmp_path / "pets")


def test_breeds_and_trimaps_are_the_originals(tmp_path, cache, server, monkeypatch):
    images, annotations = originals()
    store = prepare(tmp_path, server, monkeypatch, images, annotations, val=0.2)
    assert store.info.counts == {"train": 16, "val": 4, "test": 2}
    assert store.info.tasks == ["classification", "semantic"]
    assert len(store.info.classes) == 37
    for split in ("train", "val", "test"):
        part = store.split(split)
        for position in range(len(part)):
            sample = part.read(position)
            name = sample.image_id
            index = (TRAINVAL + TEST).index(name)
            assert part.row(position)["image"] == images[f"images/{name}.jpg"]
            assert sample.label == CLASS_IDS[name.rpartition("_")[0]] - 1
            # 1 the pet, 2 background, 3 not scored
            assert np.array_equal(sample.semantic, np.array([9, 1, 0, 255])[trimap(index)])
            assert sample.objects is None
    assert [store.info.classes[label] for label in store.split("test").column("label")] == ["Abyssinian", "Bengal"]


def test_heads_are_the_trainval_images_with_a_box(tmp_path, cache, server, monkeypatch):
    store = prepare(tmp_path, server, monkeypatch, *originals(), truth="heads", val=0.2)
    assert store.info.tasks == ["classification", "detection"]
    # 9 and 10 images of a breed: a fifth is 2, twice
    assert store.info.counts == {"train": 11, "val": 4, "test": 4}
    seen = []
    for split in ("train", "val", "test"):
        for sample in store.split(split):
            seen.append(sample.image_id)
            # pixels count from 1 and the last one is inside: 6..9 is 5 to 9
            assert sample.objects.boxes.tolist() == [[5, 4, 9, 8]]
            assert sample.objects.labels.tolist() == [sample.label]
    assert sorted(seen) == sorted(TRAINVAL[1:])


def test_share_that_leaves_no_train_image_is_refused(tmp_path):
    with pytest.raises(ParamsError, match=r"datasets\.pets\.options: val leaves no image for train"):
        pets.prepare(tmp_path / "pets", seed=0, truth="heads", val=0.5)


def test_val_has_the_same_share_of_every_breed(tmp_path, cache, server, monkeypatch):
    store = prepare(tmp_path, server, monkeypatch, *originals(), val=0.3)
    assert sorted(store.split("val").column("label")) == [0] * 3 + [36] * 3
    assert store.split("test").column("image_id") == TEST


def test_cut_xml_is_named_or_skipped_with_its_image(tmp_path, cache, server, monkeypatch):
    images, annotations = originals()
    annotations["annotations/xmls/Abyssinian_4.xml"] = head("Abyssinian_4")[:150]
    with pytest.raises(PipelineError, match=r"^annotations/xmls/Abyssinian_4\.xml cut off at line 1"):
        prepare(tmp_path, server, monkeypatch, images, annotations, truth="heads")
    assert not (tmp_path / "pets").exists()
    store = prepare(tmp_path, server, monkeypatch, images, annotations, truth="heads", on_error="skip")
    assert sum(store.info.counts.values()) == 18
    findings = json.loads((tmp_path / "pets" / "findings.json").read_text())
    assert [(found["file"], found["action"]) for found in findings] == [
        ("annotations/xmls/Abyssinian_4.xml", "dropped image")
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (head("Abyssinian_4", species="cow"), r"Abyssinian_4\.xml name: unknown class 'cow'; .*choices: cat, dog"),
        (head("Abyssinian_4", box=("", 1, 2, 3)), r"Abyssinian_4\.xml bndbox xmin: missing \(object 0\)"),
        (head("Abyssinian_4", box=(6, 5, 6, 4)), r"^images/Abyssinian_4\.jpg#0 bbox: "),
    ],
)
def test_faulty_head_is_named(tmp_path, cache, server, monkeypatch, content, message):
    images, annotations = originals()
    annotations["annotations/xmls/Abyssinian_4.xml"] = content
    with pytest.raises(PipelineError, match=message):
        prepare(tmp_path, server, monkeypatch, images, annotations, truth="heads")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"Abyssinian_1 38 1 1\n", r"^annotations/trainval\.txt:1: unknown class 38 of Abyssinian_1; fix: "),
        (b"Abyssinian_1\n", r"^annotations/trainval\.txt:1: not `image class species breed` \('Abyssinian_1'\); fix: "),
    ],
)
def test_faulty_line_of_a_list_is_named(tmp_path, cache, server, monkeypatch, line, message):
    images, annotations = originals()
    annotations["annotations/trainval.txt"] = line
    with pytest.raises(PipelineError, match=message):
        prepare(tmp_path, server, monkeypatch, images, annotations)


def test_missing_image_is_named(tmp_path, cache, server, monkeypatch):
    images, annotations = originals()
    del images["images/Bengal_7.jpg"]
    with pytest.raises(PipelineError, match=r"^images/Bengal_7\.jpg image: "):
        prepare(tmp_path, server, monkeypatch, images, annotations)


def test_missing_list_is_named(tmp_path, cache, server, monkeypatch):
    images, annotations = originals()
    del annotations["annotations/test.txt"]
    with pytest.raises(PipelineError, match=r"annotations\.tar\.gz: it holds no 'annotations/test\.txt'"):
        prepare(tmp_path, server, monkeypatch, images, annotations)
