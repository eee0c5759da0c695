"""MNIST: 70,000 handwritten digits of 28x28 grey pixels.

The official 10,000 test images are `test`; the 60,000 training images are `train` and `val`, a share of each class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.data import binary, idx
from pipeline.data.ingest import OnError
from pipeline.data.originals import checksums
from pipeline.structures import DatasetInfo

Share = Annotated[float, Field(gt=0, lt=1)]

# The mirrors of PyTorch and TensorFlow come first: the original address mostly refuses to serve.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
# Sizes and checksums as TensorFlow Datasets publishes them (url_checksums/mnist.txt)
FILES = {
    "train-images-idx3-ubyte.gz": (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    "train-labels-idx1-ubyte.gz": (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    "t10k-images-idx3-ubyte.gz": (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    "t10k-labels-idx1-ubyte.gz": (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
}
ASSETS = idx.assets("mnist", MIRRORS, FILES)
LICENCE = "CC BY-SA 3.0"
ATTRIBUTION = "Y. LeCun, C. Cortes and C. J. C. Burges: The MNIST database of handwritten digits"
SOURCE = "http://yann.lecun.com/exdb/mnist/"
CLASSES = [str(digit) for digit in range(10)]


def prepare(folder: Path, *, seed: int, on_error: OnError = "fail", val: Share = 0.1) -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split into train and val.
        on_error: what a faulty image does.
        val: share of the official training images that are the val split.
    """
    info = DatasetInfo(
        name=folder.name,
        tasks=["classification"],
        classes=CLASSES,
        channels=1,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        source=SOURCE,
        checksum=checksums(ASSETS.values()),
    )
    train, test = idx.parts(ASSETS)
    binary.write(folder, info, train=train, test=test, val=val, seed=seed, on_error=on_error)
