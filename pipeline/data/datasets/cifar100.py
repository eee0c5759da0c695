"""CIFAR-100: 60,000 photographs of 32x32 pixels in 100 classes, or in the 20 superclasses above them.

The official 10,000 test images are `test`; the 50,000 training images are `train` and `val`, a share of each class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.data import binary, cifar
from pipeline.data.download import Asset
from pipeline.data.ingest import OnError
from pipeline.data.originals import original

Share = Annotated[float, Field(gt=0, lt=1)]
Level = Literal["fine", "coarse"]

ASSETS = {
    "archive": Asset(
        name="cifar100/cifar-100-binary.tar.gz",
        urls=("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
        # as TensorFlow Datasets publishes it (url_checksums/cifar100.txt); the page itself gives an md5, 03b5dce0...
        checksum="sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        size=168513733,
    )
}
INNER = "cifar-100-binary"
LEVELS = {"coarse": (0, 20), "fine": (1, 100)}  # which label of a row, and how many classes it tells apart


def prepare(folder: Path, *, seed: int, on_error: OnError = "fail", val: Share = 0.1, labels: Level = "fine") -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split into train and val.
        on_error: what a faulty image does.
        val: share of the official training images that are the val split.
        labels: the 100 fine classes or the 20 coarse ones.
    """
    files = original(ASSETS["archive"])
    label, num_classes = LEVELS[labels]
    train, test = (
        cifar.read_part(files, f"{INNER}/{split}.bin", split, num_labels=2, label=label) for split in ("train", "test")
    )
    names = cifar.class_names(files, f"{INNER}/{labels}_label_names.txt", num_classes)
    info = cifar.info_of(folder.name, names, ASSETS["archive"])
    binary.write(folder, info, train=train, test=test, val=val, seed=seed, on_error=on_error)
