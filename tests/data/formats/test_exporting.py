import pytest

from pipeline.data.formats.exporting import FileNames

PNG, JPEG = b"\x89PNG\r\n", b"\xff\xd8\xff\xe0"


@pytest.mark.parametrize(
    ("file_name", "data", "expected"),
    [
        ("a.png", PNG, "a.png"),
        ("deep/er/a.PNG", PNG, "a.PNG"),
        ("a.jpeg", JPEG, "a.jpeg"),
        ("a.png", JPEG, "a.jpg"),
        ("a", PNG, "a.png"),
        ("a.xyz", b"????", "a.xyz"),
        ("a b:c?.png", PNG, "a_b_c_.png"),
        ("-rf.png", PNG, "_-rf.png"),
        (".png", PNG, "_.png.png"),
        ("../../etc/passwd", PNG, "passwd.png"),
        ("ä.png", PNG, "ä.png"),
        (f"{'画' * 100}.png", PNG, f"{'画' * 66}.png"),  # 198 of 300 bytes; a file system takes 255
    ],
)
def test_a_name_is_the_sources_as_far_as_any_system_takes_it(file_name, data, expected):
    assert FileNames().of({"file_name": file_name, "image": data}) == expected


def test_no_two_names_of_a_folder_are_alike():
    names = FileNames()
    files = ["x/a.png", "y/a.png", "y/A.png", "y/a.jpg", "y/a.png"]
    assert [names.of({"file_name": name, "image": PNG}) for name in files] == [
        "a.png",
        "y_a.png",
        "y_A_1.png",
        "y_a_2.png",
        "y_a_3.png",
    ]
    assert names.of({"file_name": "a.png", "image": PNG}, "other") == "a.png"
