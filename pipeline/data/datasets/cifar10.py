"""CIFAR-10: 60,000 photographs of 32x32 pixels in ten classes.

The official 10,000 test images are `test`; the 50,000 training images are `train` and `val`, a share of each class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.data import binary, cifar
from pipeline.data.download import Asset
from pipeline.data.ingest import OnError
from pipeline.data.originals import original

Share = Annotated[float, Field(gt=0, lt=1)]

ASSETS = {
    "archive": Asset(
        name="cifar10/cifar-10-binary.tar.gz",
        urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        # as TensorFlow Datasets publishes it (url_checksums/cifar10.txt); the page itself gives an md5, c32a1d4a...
        checksum="sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        size=170052171,
    )
}
INNER = "cifar-10-batches-bin"


def prepare(folder: Path, *, seed: int, on_error: OnError = "fail", val: Share = 0.1) -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split into train and val.
        on_error: what a faulty image does.
        val: share of the official training images that are the val split.
    """
    files = original(ASSETS["archive"])
    batches = [
        cifar.read_part(files, f"{INNER}/data_batch_{number}.bin", "train", num_labels=1) for number in range(1, 6)
    ]
    train = binary.Part(
        "train",
        np.concatenate([batch.images for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
    )
    test = cifar.read_part(files, f"{INNER}/test_batch.bin", "test", num_labels=1)
    info = cifar.info_of(folder.name, cifar.class_names(files, f"{INNER}/batches.meta.txt", 10), ASSETS["archive"])
    binary.write(folder, info, train=train, test=test, val=val, seed=seed, on_error=on_error)
