import pytest

from pipeline.data.formats import csv
from pipeline.data.records import RawObject
from pipeline.errors import PipelineError


@pytest.fixture
def read(tmp_path):
    def read(text, split="train", **options):
        (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return csv.read(tmp_path, split=split, annotations="a.csv", **options)

    return read


def test_columns_are_found_by_their_names_in_any_order(read, parted, tmp_path):
    # the order of BCCD's table: xmin, xmax, ymin, ymax
    source = read("filename,cell_type,xmin,xmax,ymin,ymax\na.jpg,RBC,1,5,2,8\n", columns={"class": "cell_type"})
    ((record,), faults) = parted(source)
    assert faults == []
    assert source.info.classes == ["RBC"]
    assert source.info.tasks == ["detection"]
    assert record.objects == [RawObject(label=0, bbox=[1.0, 2.0, 5.0, 8.0], index=2)]
    assert (record.image_id, record.file_name, record.image) == ("a.jpg", "a.jpg", tmp_path / "a.jpg")


def test_rows_of_one_image_are_gathered_and_an_empty_box_shows_nothing(read, parted):
    text = "file,class,xmin,ymin,xmax,ymax\na,x,1,1,2,2\nb,,,,,\na,y,3,3,4,4\n"
    (first, second), faults = parted(read(text))
    assert faults == []
    assert [(obj.label, obj.index) for obj in first.objects] == [(0, 2), (1, 4)]
    assert second.objects == []


def test_class_names_stay_text(read, parted):
    source = read("file,class\na,None\nb,NA\nc,01\nd,1\ne,nan\nf,True\n")
    records, faults = parted(source)
    assert faults == []
    assert [source.info.classes[record.label] for record in records] == ["None", "NA", "01", "1", "nan", "True"]
    assert source.info.tasks == ["classification"]


def test_semicolons_quotes_a_byte_order_mark_and_windows_line_ends(read, parted):
    ((record,), faults) = parted(read('\ufefffile;class;caption\r\n"a;1.jpg";"x ""y""";"two\r\nlines"\r\n'))
    assert faults == []
    assert (record.file_name, record.label, record.captions) == ("a;1.jpg", 0, ["two\r\nlines"])


def test_only_line_ends_end_a_row(read, parted):
    # U+2028, U+0085 and a form feed, which are line ends to Python's splitlines
    records, faults = parted(read('file,caption\na,"one\u2028two"\nb,three\x85four\nc,five\x0csix\n'))
    assert faults == []
    assert [record.captions for record in records] == [["one\u2028two"], ["three\x85four"], ["five\x0csix"]]


def test_splits_groups_and_targets_are_columns(read, parted):
    source = read("path,subset,group,target\na,Training,g,1.5\nb,valid,h,-2\n", split=None)
    records, faults = parted(source)
    assert faults == []
    assert source.has_splits
    assert source.info.tasks == ["regression"]
    assert [(r.split, r.group, r.target) for r in records] == [("train", "g", 1.5), ("val", "h", -2.0)]
    assert [r.split for r in read("path,subset,target\na,val,1\n", split="test").records] == ["test"]


def test_several_captions_of_an_image_are_several_rows(read, parted):
    ((record,), faults) = parted(read("file,caption\na,One.\na,Two.\n"))
    assert faults == []
    assert record.captions == ["One.", "Two."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv: no header and rows"),
        ("file,class\n", "a.csv: no header and rows"),
        ("class\nx\n", "a.csv:1: no column of file names (class)"),
        ("file,colour\na,x\n", "a.csv:1: no column of a class, target or caption"),
        ("file,class,class\na,x,y\n", "a.csv:1: two columns are called 'class'"),
        ("file,class,label\na,x,y\n", "a.csv:1: both 'class' and 'label' may be the class; fix: choose in `columns`"),
        ("file,class,xmin,ymin,xmax\na,x,1,1,2\n", "a.csv:1: boxes, but no column ymax"),
        ("file,xmin,ymin,xmax,ymax\na,1,1,2,2\n", "a.csv:1: boxes, but no column class"),
        ("file,class\na,x\nb\n", "a.csv:3: 1 fields where the header has 2"),
        ('file,class\na,"x\n', "a.csv:2: not CSV (unexpected end of data)"),
        (b"file,class\na,\xe4\n", "a.csv:2: not UTF-8"),
    ],
)
def test_a_table_that_is_wrong_as_a_whole_is_one_line(read, text, message):
    with pytest.raises(PipelineError) as caught:
        read(text)
    assert str(caught.value).startswith(message)
    assert "; fix: " in str(caught.value)


def test_columns_must_be_known_and_there(read):
    with pytest.raises(PipelineError, match=r"columns klass: no such column is read; did you mean 'class'"):
        read("file,class\na,x\n", columns={"klass": "class"})
    with pytest.raises(PipelineError, match=r"a.csv:1: no column 'kind'; choices: class, file"):
        read("file,class\na,x\n", columns={"class": "kind"})


BOXES = "file,class,xmin,ymin,xmax,ymax\n"


@pytest.mark.parametrize(
    ("text", "fault", "num_records"),
    [
        (f"{BOXES}a,x,1,1,two,2\n", "a.csv:2 xmax: not a number ('two')", 1),
        (f"{BOXES}a,x,1,1,,2\n", "a.csv:2 xmax: not a number ('')", 1),
        (f"{BOXES}a,x,,,,\n", "a.csv:2 xmin: a class without a box", 1),
        (f"{BOXES}a,x,1,1,nan,2\n", "a.csv:2 xmax: not a number ('nan')", 1),
        (f"{BOXES}../a,x,1,1,2,2\n", "a.csv:2 file: empty, or leaves the folder of images ('../a')", 0),
        ("file,class\n,x\n", "a.csv:2 file: empty", 0),
        ("file,class\na,x\nb,y\na,x\n", "a.csv:4 file: an earlier row is of this image too", 1),
        ("file,class\na,x\nb,y\na,y\n", "a.csv:4 label: 1, but an earlier row of this image says 0", 1),
        ("file,target\na,much\n", "a.csv:2 target: not a number ('much')", 0),
        ("file;target\na;1,5\n", "a.csv:2 target: not a number ('1,5'; a point is expected, not a comma)", 0),
        ("file,class,split\na,x,dev\n", "a.csv:2 split: should be train, val, test ('dev')", 0),
    ],
)
def test_a_faulty_row_is_named_by_its_line(read, parted, text, fault, num_records):
    records, faults = parted(read(text, split=None))
    assert len(records) == num_records
    assert len(faults) == 1
    assert faults[0].startswith(fault)


def test_a_class_that_is_not_among_the_chosen_ones_is_a_fault(read, parted):
    _, faults = parted(read("file,class\na,cat\nb,Cat\n", classes=["cat"]))
    assert [fault.partition(";")[0] for fault in faults] == ["a.csv:3 class: 'Cat' is not among the classes"]
