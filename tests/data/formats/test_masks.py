import numpy as np
import pytest
from PIL import Image

from pipeline.data.formats import masks
from pipeline.errors import PipelineError
from pipeline.ops import masks as mask_ops

NAMES = {0: "ground", 7: "tree", 21: "cow"}


@pytest.fixture
def write(tmp_path, picture):
    def write(stem, image=True, **maps):
        if image:
            picture(tmp_path / f"images/{stem}.jpg", 4, 6)
        for role, values in maps.items():
            (tmp_path / role).mkdir(exist_ok=True)
            Image.fromarray(np.array(values)).save(tmp_path / role / f"{stem}.png")

    return write


def test_values_of_the_maps_become_class_indices(write, parted, tmp_path):
    write("a", masks=np.zeros((4, 6), np.uint8))
    source = masks.read(tmp_path, split="train", images="images", masks="masks", numbers=NAMES)
    ((record,), faults) = parted(source)
    assert faults == []
    assert source.semantic_values == {0: 0, 7: 1, 21: 2}
    assert source.info.semantic_classes == ["ground", "tree", "cow"]
    assert source.info.thing_of_semantic == [-1, -1, -1]
    assert source.info.tasks == ["semantic"]
    assert record.semantic == tmp_path / "masks/a.png"
    assert record.objects is None


def test_an_instance_is_of_the_class_that_most_of_it_shows(write, parted, tmp_path):
    semantic = np.zeros((4, 6), np.uint8)
    semantic[:2], semantic[2, :2] = 21, 7
    instances = np.zeros((4, 6), np.uint16)
    instances[:2, :3], instances[2, :2], instances[2, 2:] = 300, 300, 5
    write("a", masks=semantic, instances=instances)
    source = masks.read(
        tmp_path, split="train", images="images", masks="masks", instances="instances", numbers=NAMES, things=["cow"]
    )
    ((record,), faults) = parted(source)
    assert faults == []
    assert source.info.tasks == ["detection", "instance", "semantic"]
    assert source.info.classes == ["cow"]
    assert source.info.thing_of_semantic == [-1, -1, 0]
    # instance 300 shows 6 pixels of cow and 2 of tree; instance 5 shows ground, which is no thing
    (cow,) = record.objects
    assert (cow.label, cow.index) == (0, 300)
    assert (mask_ops.decode(cow.mask["counts"], 4, 6) == (instances == 300)).all()


def test_instance_maps_alone_are_of_one_class(write, parted, tmp_path):
    write("a", instances=np.array([[0, 1], [2, 2]], np.uint8).repeat(2, 0).repeat(3, 1))
    source = masks.read(tmp_path, split="train", images="images", instances="instances", numbers={1: "person"})
    ((record,), faults) = parted(source)
    assert faults == []
    assert source.semantic_values is None
    assert source.info.tasks == ["detection", "instance"]
    assert [(obj.label, obj.index) for obj in record.objects] == [(0, 1), (0, 2)]


def test_images_without_a_map_and_maps_without_an_image_are_told(write, parted, tmp_path):
    write("a", masks=np.zeros((4, 6), np.uint8))
    write("b")
    write("c", image=False, masks=np.zeros((4, 6), np.uint8))
    records, faults = parted(masks.read(tmp_path, split="train", images="images", masks="masks", numbers=NAMES))
    assert [record.image_id for record in records] == ["a"]
    assert faults == [
        "masks/c.png masks: has no image of its name; fix: add the image or remove this map",
        "images/b.jpg masks: no map of its name; fix: draw one or move the image away",
    ]


def test_a_picture_in_colours_is_no_instance_map(write, parted, tmp_path):
    write("a", instances=np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8))
    records, faults = parted(
        masks.read(tmp_path, split="train", images="images", instances="instances", numbers={1: "person"})
    )
    assert records == []
    assert faults[0].startswith("instances/a.png a picture in colours")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "masks: neither a folder of masks nor one of instances"),
        ({"masks": "masks", "things": ["horse"]}, "things: no class 'horse'; choices: cow, ground, tree"),
        ({"masks": "masks", "instances": "instances"}, "instances: no class is a thing; fix: list those in `things`"),
        ({"instances": "instances"}, "instances: without class maps there can be one class only (there are 3)"),
        ({"masks": "nowhere"}, "nowhere: no such folder of images"),
    ],
)
def test_options_that_do_not_fit_are_told(write, tmp_path, options, message):
    write("a", masks=np.zeros((4, 6), np.uint8))
    with pytest.raises(PipelineError) as caught:
        masks.read(tmp_path, split="train", images="images", numbers=NAMES, **options)
    assert str(caught.value).startswith(message)
