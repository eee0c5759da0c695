import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.data.datasets import huggingface
from pipeline.data.store import Store
from pipeline.errors import ParamsError, PipelineError
from tests.data.datasets.originals import jpeg, picture, png
from tests.data.datasets.test_parquet import FEATURES, MAPPING, encoded, numbers_of, write
from tests.data.servers import Hub

PROJECT = Path(__file__).parents[3]


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def repository(tmp_path):
    """A folder laid out like a repository of the hub."""
    folder = tmp_path / "repository"
    write(folder / "data/train-00000-of-00002.parquet", range(6), FEATURES)
    write(folder / "data/train-00001-of-00002.parquet", range(6, 10), FEATURES)
    write(folder / "data/test-00000-of-00001.parquet", range(10, 12), FEATURES)
    return folder


def prepare(tmp_path, repository, **options):
    huggingface.prepare(tmp_path / "toy", seed=0, repository=str(repository), **{"columns": MAPPING, **options})
    return Store(tmp_path / "toy")


def test_bytes_labels_and_splits_are_the_repositorys(tmp_path, repository):
    store = prepare(tmp_path, repository, val=0.2)
    assert store.info.counts == {"train": 8, "val": 2, "test": 2}
    assert store.info.classes == ["cat", "dog"]
    assert store.info.source == "repository"
    assert sorted(store.split("val").column("label")) == [0, 1]
    assert numbers_of(store, "test") == [10, 11]
    assert sorted(numbers_of(store, "train") + numbers_of(store, "val")) == list(range(10))
    for split in store.info.counts:
        part = store.split(split)
        for row in (part.row(index) for index in range(len(part))):
            number = int(row["file_name"].removesuffix(".img"))
            assert row["image"] == encoded(number)
            assert row["label"] == number % 2


def test_an_image_folder_is_read_with_its_files_names(tmp_path):
    for split in ("train", "test"):
        for label, kind in enumerate(("cat", "dog")):
            (tmp_path / f"folder/{split}/{kind}").mkdir(parents=True)
            make = (jpeg, png)[label]
            name = f"folder/{split}/{kind}/{split}_{kind}.{('jpg', 'png')[label]}"
            (tmp_path / name).write_bytes(make(picture(8, 8, label)))
    store = prepare(tmp_path, tmp_path / "folder", val=0.0)
    assert store.info.classes == ["cat", "dog"]
    part = store.split("train")
    rows = sorted((part.row(i) for i in range(2)), key=lambda row: row["label"])
    assert [(row["file_name"], row["label"]) for row in rows] == [("train_cat.jpg", 0), ("train_dog.png", 1)]
    assert rows[0]["image"] == jpeg(picture(8, 8, 0))


def test_splits_by_name(tmp_path, repository):
    store = prepare(tmp_path, repository, splits={"train": "test", "test": "train"}, val=0.0)
    assert numbers_of(store, "train") == [10, 11]
    assert numbers_of(store, "test") == list(range(10))


@pytest.mark.parametrize(
    ("have", "wanted", "told"),
    [
        (["train", "unsupervised"], None, r"splits: it is not plain which of train, unsupervised are"),
        (["train", "val", "validation"], None, "it is not plain which"),
        (["train"], {"training": "train"}, r"splits\.training: unknown key; did you mean 'train'"),
        (["train", "test"], {"train": "trian"}, r"splits\.train: no split 'trian'; did you mean 'train'"),
    ],
)
def test_splits_that_are_not_plain_are_refused(have, wanted, told):
    with pytest.raises(ParamsError, match=told):
        huggingface._chosen(have, wanted, "params.yaml datasets.toy.options")


def test_splits_of_the_usual_names_are_found():
    chosen = huggingface._chosen(["test", "validation", "train"], None, "")
    assert chosen == [("train", "train"), ("validation", "val"), ("test", "test")]


def test_offline_says_how_to_do_without_network(tmp_path, repository, monkeypatch):
    monkeypatch.setenv("PIPELINE_OFFLINE", "1")
    with pytest.raises(PipelineError) as caught:
        prepare(tmp_path, "somebody/pictures", revision="abc")
    assert str(caught.value) == (
        "params.yaml datasets.toy.options.repository: somebody/pictures is on the hub, and PIPELINE_OFFLINE is set; "
        "fix: where there is a network run `hf download somebody/pictures --repo-type dataset --revision abc "
        "--local-dir FOLDER`, bring the folder here and write `repository: FOLDER`"
    )
    assert prepare(tmp_path, repository).info.counts["test"] == 2  # a folder needs none


def test_a_repository_without_data_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match=r"datasets\.toy\.options\.repository: .*cannot be read \(\w+: ") as caught:
        prepare(tmp_path, tmp_path / "empty")
    assert "\n" not in str(caught.value)


def test_a_repository_of_code_is_refused_and_not_run(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code/code.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\n")
    with pytest.raises(PipelineError, match="cannot be read"):
        prepare(tmp_path, tmp_path / "code")
    assert not (tmp_path / "marker").exists()


def test_a_token_in_a_message_is_not_told():
    with pytest.raises(PipelineError) as caught, huggingface._told("x"):
        raise ValueError("401 for https://hub/a?token=hunter2 with hf_hunter2\nmore")
    assert "hunter2" not in str(caught.value)
    assert "(ValueError: 401 for https://hub/a... with ...)" in str(caught.value)


PREPARE = """
import sys
from pathlib import Path
from pipeline.data.datasets import huggingface
huggingface.prepare(
    Path(sys.argv[1]), seed=0, repository="somebody/pictures", columns={"image": "image", "label": "label"},
    revision="v1", val=0.2,
)
"""


def prepared_in_a_process(tmp_path, endpoint):
    """The hub's address is read when its package is imported."""
    return subprocess.run(
        [sys.executable, "-c", PREPARE, str(tmp_path / "toy")],
        cwd=PROJECT,
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_repository_of_the_hub_is_streamed(tmp_path, repository):
    with Hub(repository) as hub:
        done = prepared_in_a_process(tmp_path, hub.url)
    assert done.returncode == 0, done.stderr
    store = Store(tmp_path / "toy")
    assert store.info.counts == {"train": 8, "val": 2, "test": 2}
    assert store.info.source == "https://huggingface.co/datasets/somebody/pictures"
    assert store.info.checksum == f"commit {Hub.COMMIT}"  # which v1 stands for
    assert store.info.licence == "mit"
    assert store.split("test").row(0)["image"] == encoded(10)
    files = [line for line in hub.asked if line.endswith(".parquet")]
    assert files
    assert all(Hub.COMMIT in line for line in files)
    assert not list((tmp_path / "cache").rglob("*.parquet"))


def test_a_hub_that_does_not_answer_is_one_line(tmp_path):
    last = prepared_in_a_process(tmp_path, "http://127.0.0.1:9").stderr.splitlines()[-1]
    assert "datasets.toy.options.repository: somebody/pictures: cannot be read (" in last
    assert "fix: " in last
