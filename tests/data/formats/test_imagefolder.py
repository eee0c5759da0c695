import errno
import os

import pytest

from pipeline.data.formats import imagefolder
from pipeline.errors import PipelineError


def test_a_folder_is_a_class(parted, picture, tmp_path):
    for name in ("dog/b.png", "cat/a.jpg", "cat/deep/er.png"):
        picture(tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "LICENSE.txt").write_text("terms", encoding="utf-8")
    (tmp_path / "cat/notes.txt").write_text("none", encoding="utf-8")
    picture(tmp_path / "cat/._a.jpg")
    source = imagefolder.read(tmp_path, split="train")
    records, faults = parted(source)
    assert faults == []
    assert source.info.classes == ["cat", "dog", "empty"]
    assert source.info.tasks == ["classification"]
    assert [(r.file_name, r.label) for r in records] == [("cat/a.jpg", 0), ("cat/deep/er.png", 0), ("dog/b.png", 1)]
    assert len({r.image_id for r in records}) == source.num_records == 3


def test_an_image_beside_the_folders_has_no_class(parted, picture, tmp_path):
    picture(tmp_path / "cat/a.png")
    picture(tmp_path / "b.png")
    records, faults = parted(imagefolder.read(tmp_path, split="train"))
    assert len(records) == 1
    assert faults == ["b.png is in no folder of a class; fix: move it into the folder of its class"]


def test_a_folder_called_like_an_image_is_a_folder(parted, picture, tmp_path):
    picture(tmp_path / "cat/x.jpg/a.png")
    records, _ = parted(imagefolder.read(tmp_path, split="train"))
    assert [record.file_name for record in records] == ["cat/x.jpg/a.png"]


def test_linked_folders_are_read_and_those_of_programs_are_passed_over(parted, picture, tmp_path):
    for name in ("in/cat/a.JFIF", "elsewhere/b.png", "in/cat/.ipynb_checkpoints/a-checkpoint.png"):
        picture(tmp_path / name)
    picture(tmp_path / "in/__MACOSX/cat/._a.png")
    (tmp_path / "in/cat/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/cat/loop").symlink_to(tmp_path / "in/cat")
    source = imagefolder.read(tmp_path / "in", split="train")
    records, faults = parted(source)
    assert faults == []
    assert source.info.classes == ["cat"]
    assert [record.file_name for record in records] == ["cat/a.JFIF", "cat/more/b.png"]


def test_a_folder_that_cannot_be_listed_is_told(picture, tmp_path, monkeypatch):
    picture(tmp_path / "cat/deep/a.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PipelineError, match=r"^cat/deep: cannot be listed \(Permission denied\); fix: make the folder"):
        imagefolder.read(tmp_path, split="train")


def test_what_is_wrong_as_a_whole_is_one_line(picture, tmp_path):
    with pytest.raises(PipelineError, match=r"^none: no such folder; fix"):
        imagefolder.read(tmp_path, split="train", images="none")
    with pytest.raises(PipelineError, match=r"no folder of a class in it; fix"):
        imagefolder.read(tmp_path, split="train")
    (tmp_path / "cat").mkdir()
    with pytest.raises(PipelineError, match=r"no image in its folders; fix"):
        imagefolder.read(tmp_path, split="train")
    picture(tmp_path / "cat/a.png")
    with pytest.raises(PipelineError, match=r"^cat: no class of that name; did you mean 'Cat'\?"):
        imagefolder.read(tmp_path, split="train", classes=["Cat"])
