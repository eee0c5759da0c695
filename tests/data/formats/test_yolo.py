import pytest

from pipeline.data.formats import yolo
from pipeline.errors import PipelineError

NAMES = {0: "cat", 3: "dog"}


@pytest.fixture
def write(tmp_path, picture):
    def write(stem, text=None, **image):
        picture(tmp_path / f"images/{stem}.png", **image)
        if text is not None:
            (tmp_path / "labels").mkdir(exist_ok=True)
            (tmp_path / f"labels/{stem}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


@pytest.fixture
def read(tmp_path):
    return lambda **options: yolo.read(tmp_path, **{"split": "train", "images": "images", "numbers": NAMES} | options)


def test_boxes_are_shares_of_the_image_around_their_middle(write, read, parted):
    write("a", "3 0.5 0.25 0.2 0.3\n0 0.1 0.1 0.2 0.2\n")
    source = read()
    ((record,), faults) = parted(source)
    assert faults == []
    assert source.info.classes == ["cat", "dog"], "numbers may have gaps"
    assert source.info.tasks == ["detection"]
    # 30 wide, 20 high: the middle is 15, 5, the sides are 6, 6
    assert record.objects[0].bbox == pytest.approx([12, 2, 18, 8])
    assert [obj.label for obj in record.objects] == [1, 0]
    assert [obj.index for obj in record.objects] == [1, 2]
    assert (record.file_name, record.annotation) == ("images/a.png", "labels/a.txt")


def test_shares_are_of_the_image_as_it_is_shown(write, read, parted, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter: 20 high and 30 wide are shown as 30 high and 20 wide
    write("a", "0 0.5 0.5 1 1\n", exif=exif)
    ((record,), _) = parted(read())
    assert record.objects[0].bbox == pytest.approx([0, 0, 20, 30])


def test_rows_of_more_numbers_are_polygons(write, read, parted):
    write("a", "0 0 0 0.5 0 0.5 0.5\n")
    source = read()
    ((record,), faults) = parted(source)
    assert faults == []
    assert source.info.tasks == ["detection", "instance"]
    assert record.objects[0].mask == [[0, 0, 15, 0, 15, 10]]
    assert record.objects[0].bbox is None


def test_an_image_without_a_text_file_or_with_an_empty_one_shows_nothing(write, read, parted):
    write("a", "0 0.5 0.5 0.1 0.1\n")
    write("b")
    write("c", " \n")
    records, faults = parted(read())
    assert faults == []
    assert [len(record.objects) for record in records] == [1, 0, 0]


def test_no_text_file_at_all_is_the_wrong_folder(write, read):
    write("a")
    with pytest.raises(PipelineError, match=r"^labels: no text file for any of the 1 images of images; fix"):
        read()


BOX = "0 0.5 0.5 0.1 0.1"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("0 0.5 0.5 0.1", "row: 4 columns where 5 belong"),
        ("0 0.5 0.5 0.1 0.1 0.9", "row: 6 columns where 5 belong"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5", "row: 7 columns where 5 belong (a polygon, where the first row of the split"),
        ("99 0.5 0.5 0.1 0.1", "class: no class 99 (there are 2: 0 to 3)"),
        ("1 0.5 0.5 0.1 0.1", "class: no class 1"),
        ("0.5 0.5 0.5 0.1 0.1", "class: not a whole number ('0.5')"),
        ("-1 0.5 0.5 0.1 0.1", "class: no class -1"),
        ("cat 0.5 0.5 0.1 0.1", "class: not a number ('cat')"),
        ("inf 0.5 0.5 0.1 0.1", "class: not a number ('inf')"),
        ("0 15 10 3 2", "column 2: not a share of the image in 0..1 (15, which looks like pixels)"),
        ("0 0.5 0.5 0.1 1.5", "column 5: not a share of the image in 0..1 (1.5)"),
        ("0 -0.1 0.5 0.1 0.1", "column 2: not a share of the image in 0..1 (-0.1)"),
        ("0 nan 0.5 0.1 0.1", "column 2: not a number ('nan')"),
        ("0 0,5 0.5 0.1 0.1", "column 2: a comma in the number ('0,5'); points are expected"),
        (BOX, "row: line 1 says the same"),
    ],
)
def test_a_faulty_row_is_named_by_its_line_and_the_others_stay(write, read, parted, row, what):
    write("a", f"{BOX}\n\n{row}\n0 0.4 0.4 0.1 0.1\n")
    ((record,), faults) = parted(read())
    assert [obj.index for obj in record.objects] == [1, 4]
    assert len(faults) == 1
    assert faults[0].startswith(f"labels/a.txt:3 {what}")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.7", "row: 7 coordinates, which is no polygon"),
        (BOX, "row: a box, where the first row of the split is a polygon"),
        ("0 0.1 0.1 0.5 0.1 0.5 nan", "column 7: not a number"),
    ],
)
def test_a_faulty_polygon_is_named_by_its_line(write, read, parted, row, what):
    write("a", f"0 0 0 0.5 0 0.5 0.5\n{row}\n")
    ((record,), faults) = parted(read())
    assert len(record.objects) == 1
    assert faults[0].startswith(f"labels/a.txt:2 {what}")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(write, read, parted):
    write("a", b"\xef\xbb\xbf0 0.5 0.5 0.1 0.1\r\n3 0.5 0.5 0.2 0.2\r\n")
    ((record,), faults) = parted(read())
    assert faults == []
    assert [obj.label for obj in record.objects] == [0, 1]


def test_a_text_file_of_another_encoding_leaves_its_image_out(write, read, parted):
    write("a", BOX.encode("utf-16"))
    write("b", BOX)
    ((record,), faults) = parted(read())
    assert record.image_id == "b"
    assert faults[0].startswith("labels/a.txt not readable")


def test_a_text_file_without_an_image_is_told(write, read, parted, tmp_path):
    write("a", BOX)
    (tmp_path / "labels/z.txt").write_text(BOX, encoding="utf-8")
    (tmp_path / "labels/classes.txt").write_text("cat\n", encoding="utf-8")
    records, faults = parted(read())
    assert len(records) == 1
    assert faults == ["labels/z.txt has no image; fix: add the image or remove this file"]


def test_a_text_file_that_ends_in_capitals_is_told_and_a_copy_of_a_program_is_no_image(
    write, read, parted, tmp_path, picture
):
    write("a", BOX)
    picture(tmp_path / "images/.ipynb_checkpoints/a-checkpoint.png")
    picture(tmp_path / "images/b.png")
    (tmp_path / "labels/b.TXT").write_text(BOX, encoding="utf-8")
    records, faults = parted(read())
    assert [record.image_id for record in records] == ["a", "b"]
    assert faults == ["labels/b.TXT is not read, as it ends in .TXT; fix: write the ending in small letters"]


@pytest.mark.parametrize(
    ("row", "points"),
    [
        ("0 0.5 0.5 1 1 0.1 0.2 2 0 0 0", [3, 4, 2, 0, 0, 0]),
        ("0 0.5 0.5 1 1 0.1 0.2 0 0", [3, 4, 2, 0, 0, 0]),
    ],
)
def test_keypoints_follow_the_box_with_or_without_visibility(write, read, parted, row, points):
    write("a", row)
    source = read(keypoints=["nose", "tail"])
    ((record,), faults) = parted(source)
    assert faults == []
    assert source.info.tasks == ["detection", "keypoints"]
    assert record.objects[0].keypoints == pytest.approx(points)


def test_an_image_that_cannot_be_read_is_left_to_where_it_is_decoded(write, read, parted, tmp_path):
    write("a", BOX)
    (tmp_path / "images/a.png").write_bytes(b"<html>")
    ((record,), faults) = parted(read())
    assert (record.objects, faults) == ([], [])


def test_two_images_of_one_name_are_ambiguous(write, read, picture, tmp_path):
    write("a", BOX)
    picture(tmp_path / "images/a.jpg")
    with pytest.raises(PipelineError, match=r"^images/a.png: a.jpg has that name too"):
        read()


def test_a_config_names_the_folders_of_splits(write, tmp_path, picture):
    picture(tmp_path / "train/images/a.png")
    picture(tmp_path / "valid/images/b.png")
    text = "train: ../train/images\nval: ../valid/images\ntest:\nnames: [cat]\n"
    (tmp_path / "data.yaml").write_text(text, encoding="utf-8")
    assert yolo.layout(tmp_path) == {"train": {"images": "train/images"}, "val": {"images": "valid/images"}}
    (tmp_path / "data.yaml").write_text("train: nowhere\n", encoding="utf-8")
    with pytest.raises(PipelineError, match=r"^data.yaml train: no such folder \('nowhere'\); fix"):
        yolo.layout(tmp_path)
