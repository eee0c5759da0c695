import numpy as np
import pytest
from PIL import Image

from pipeline.data.formats import voc
from pipeline.data.records import RawObject
from pipeline.errors import PipelineError

OBJECT = """<object><name>{name}</name><difficult>0</difficult>
<bndbox><ymin>{y1}</ymin><xmin>{x1}</xmin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"""


def thing(name="cat", x1=1, y1=2, x2=5, y2=8):
    return OBJECT.format(name=name, x1=x1, y1=y1, x2=x2, y2=y2)


@pytest.fixture
def write(tmp_path, picture):
    def write(stem="a", *objects, filename=None, size="<width>30</width><height>20</height>", text=None, image=True):
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        if image:
            picture(tmp_path / f"JPEGImages/{stem}.jpg")
        name = f"{stem}.jpg" if filename is None else filename
        content = f"<annotation><filename>{name}</filename><size>{size}</size>{''.join(objects)}</annotation>"
        (tmp_path / f"Annotations/{stem}.xml").write_text(content if text is None else text, encoding="utf-8")

    return write


def test_an_image_with_two_objects(write, parted, tmp_path):
    write("a", thing("dog"), thing(" cat\n", 0.5, 1, 2.5, 3).replace("<difficult>0", "<difficult>1"))
    write("b")
    source = voc.read(tmp_path, split="train")
    (first, second), faults = parted(source)
    assert faults == []
    assert source.info.classes == ["cat", "dog"]
    assert source.info.tasks == ["detection"]
    assert source.num_records == 2
    assert (first.image_id, first.file_name, first.size) == ("a", "JPEGImages/a.jpg", (20, 30))
    assert first.annotation == "Annotations/a.xml"
    assert first.objects == [
        RawObject(label=1, bbox=[1.0, 2.0, 5.0, 8.0], index=0),
        RawObject(label=0, bbox=[0.5, 1.0, 2.5, 3.0], iscrowd=True, index=1),
    ]
    assert second.objects == []


def test_pixels_counted_from_1_lose_1_at_the_first_corner(write, parted, tmp_path):
    write("a", thing(x1=1, y1=2, x2=30, y2=20))
    ((record,), _) = parted(voc.read(tmp_path, split="train", one_based=True))
    assert record.objects[0].bbox == [0.0, 1.0, 30.0, 20.0]


@pytest.mark.parametrize(
    ("objects", "fault"),
    [
        (thing("horse"), "Annotations/a.xml#0 name: 'horse' is not among the classes; choices: cat"),
        (thing("Cat"), "Annotations/a.xml#0 name: 'Cat' is not among the classes; did you mean 'cat'?"),
        (thing(""), "Annotations/a.xml#0 name: missing"),
        (thing(x1="left"), "Annotations/a.xml#0 bndbox xmin: not a number ('left')"),
        (thing(x1="1,5"), "Annotations/a.xml#0 bndbox xmin: not a number ('1,5')"),
        (thing(x1="NaN"), "Annotations/a.xml#0 bndbox xmin: not a number ('NaN')"),
        (thing(x1="1_0"), "Annotations/a.xml#0 bndbox xmin: not a number ('1_0')"),
        (thing(x1=""), "Annotations/a.xml#0 bndbox xmin: missing"),
        ("<object><name>cat</name></object>", "Annotations/a.xml#0 bndbox: missing"),
        (thing().replace("<difficult>0", "<difficult>yes"), "Annotations/a.xml#0 difficult: should be 0 or 1 ('yes')"),
    ],
)
def test_a_faulty_object_is_named_and_the_others_stay(write, parted, tmp_path, objects, fault):
    write("a", objects, thing())
    ((record,), faults) = parted(voc.read(tmp_path, split="train", classes=["cat"]))
    assert [obj.index for obj in record.objects] == [1]
    assert len(faults) == 1
    assert faults[0].startswith(fault)
    assert "; fix: " in faults[0]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><filename>&a;</filename></annotation>'


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (BOMB, "holds a document type or an entity (DTDForbidden), which is not read"),
        (OUTSIDE, "holds a document type or an entity (DTDForbidden), which is not read"),
        ("<annotation>\n<object>", "cut off at line 2"),
        ("", "cut off at line 1"),
        ("not XML", "not XML at line 1"),
    ],
)
def test_a_file_that_is_no_plain_xml_leaves_its_image_out(write, parted, tmp_path, text, what):
    write("a", text=text)
    write("b", thing())
    ((record,), faults) = parted(voc.read(tmp_path, split="train"))
    assert record.image_id == "b"
    assert len(faults) == 1
    assert faults[0].startswith(f"Annotations/a.xml {what}")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\a.jpg"])
def test_a_file_name_that_leaves_the_folder_is_refused(write, parted, tmp_path, name):
    write("a", thing(), filename=name)
    records, faults = parted(voc.read(tmp_path, split="train"))
    assert records == []
    assert faults[0].startswith("Annotations/a.xml filename: leaves the folder of images")


def test_a_file_named_after_another_image_is_told_and_kept(write, parted, tmp_path):
    write("a", thing(), filename="b.jpg")
    (records, faults) = parted(voc.read(tmp_path, split="train"))
    assert len(records) == 1
    assert faults == [
        "Annotations/a.xml filename: 'b.jpg', but the file is named after 'a.jpg'; fix: give both one name"
    ]


def test_an_image_without_xml_and_an_xml_without_image_are_told(write, parted, picture, tmp_path):
    write("a", thing())
    write("b", thing(), image=False)
    picture(tmp_path / "JPEGImages/c.png")
    records, faults = parted(voc.read(tmp_path, split="train"))
    assert [record.image_id for record in records] == ["a"]
    assert [fault.partition(";")[0] for fault in faults] == [
        "Annotations/b.xml filename: no image 'b' in the folder of images",
        "JPEGImages/c.png has no XML file",
    ]


def test_a_size_may_be_missing_or_0_but_must_be_a_number(write, parted, tmp_path):
    write("a", size="")
    write("b", size="<width>0</width><height>0</height>")
    write("c", size="<width>w</width><height>20</height>")
    records, faults = parted(voc.read(tmp_path, split="train"))
    assert [record.size for record in records] == [None, None, None]
    assert [fault.partition(";")[0] for fault in faults] == [
        "Annotations/a.xml size height: missing",
        "Annotations/c.xml size width: not a number ('w')",
    ]


def test_classes_that_differ_in_capitals_alone_are_refused(write, tmp_path):
    write("a", thing("cat"))
    write("b", thing("Cat"))
    with pytest.raises(PipelineError, match=r"Annotations/b.xml name: 'Cat' where Annotations/a.xml writes 'cat'; fix"):
        voc.read(tmp_path, split="train")


def test_an_image_set_names_images_and_may_say_of_which_class_they_are(write, parted, tmp_path):
    for stem in "abc":
        write(stem, thing())
    (tmp_path / "list.txt").write_text("c -1\r\n\na  1\n", encoding="utf-8")
    records, _ = parted(voc.read(tmp_path, split="train", image_set="list.txt"))
    assert [record.image_id for record in records] == ["c", "a"]


def test_an_image_set_parts_its_columns_by_plain_spaces_alone(write, parted, tmp_path):
    name = "Screenshot_3.04\u202fPM"  # as macOS writes it
    write(name, thing())
    (tmp_path / "list.txt").write_text(f"{name} 1\n", encoding="utf-8")
    records, faults = parted(voc.read(tmp_path, split="train", image_set="list.txt"))
    assert ([record.image_id for record in records], faults) == ([name], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.txt: names no image"),
        ("a\na\n", "list.txt:2: line 1 names 'a' too"),
        ("a\n../b\n", "list.txt:2: leaves the folder of images"),
    ],
)
def test_a_faulty_image_set_is_told_by_line(write, tmp_path, text, message):
    write("a")
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    with pytest.raises(PipelineError, match=f"^{message}"):
        voc.read(tmp_path, split="train", image_set="list.txt")


def test_maps_hold_palette_indices_and_object_i_is_the_i_th_of_the_file(write, parted, tmp_path):
    write("a", thing("dog"), thing("cat"), thing("cat"))
    write("b", thing("dog"))
    values = np.zeros((20, 30), np.uint8)
    values[2:5, 3:9], values[6:9, 3:9], values[5] = 1, 2, 255
    for folder in ("SegmentationClass", "SegmentationObject"):
        (tmp_path / folder).mkdir()
        image = Image.fromarray(values)
        image.putpalette([7, 8, 9] * 256)  # all of one colour: only the index tells
        image.save(tmp_path / folder / "a.png")
    source = voc.read(tmp_path, split="train", semantic="SegmentationClass", instances="SegmentationObject")
    (first, second), faults = parted(source)
    assert source.info.tasks == ["detection", "instance", "semantic"]
    assert source.info.semantic_classes == ["background", "cat", "dog"]
    assert source.info.thing_of_semantic == [-1, 0, 1]
    assert first.semantic == tmp_path / "SegmentationClass/a.png"
    assert [int(obj.mask.sum()) for obj in first.objects] == [18, 18]
    assert first.objects[0].mask[2:5, 3:9].all()
    assert faults == ["Annotations/a.xml#2 object map: no pixel has the value 3; fix: draw it or remove this object"]
    assert (second.semantic, second.objects[0].mask) == (None, None)
