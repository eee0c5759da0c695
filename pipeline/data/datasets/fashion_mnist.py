"""Fashion-MNIST: 70,000 articles of clothing of 28x28 grey pixels, in the files and splits of MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.data import binary, idx
from pipeline.data.ingest import OnError
from pipeline.data.originals import checksums
from pipeline.structures import DatasetInfo

Share = Annotated[float, Field(gt=0, lt=1)]

MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)
# Sizes and checksums as TensorFlow Datasets publishes them (url_checksums/fashion_mnist.txt)
FILES = {
    "train-images-idx3-ubyte.gz": (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    "train-labels-idx1-ubyte.gz": (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    "t10k-images-idx3-ubyte.gz": (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    "t10k-labels-idx1-ubyte.gz": (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
}
ASSETS = idx.assets("fashion_mnist", MIRRORS, FILES)
LICENCE = "MIT"
ATTRIBUTION = "H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST. arXiv:1708.07747. Copyright Zalando SE, 2017"
SOURCE = "https://github.com/zalandoresearch/fashion-mnist"
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


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
