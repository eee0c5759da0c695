"""The files of MNIST and of the datasets that took over their names and their format, idx."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.data.binary import Part
from pipeline.data.download import Asset, fetch_all
from pipeline.errors import PipelineError

MAX_BYTES = 2**31  # the largest of its kind, EMNIST, has 0.6 GB
PREFIXES = {"train": "train", "test": "t10k"}


def assets(folder: str, mirrors: tuple[str, ...], files: Mapping[str, tuple[int, str]]) -> dict[str, Asset]:
    """The assets of a source by their file names.

    Args:
        folder: in the cache.
        mirrors: the addresses that the files' names are appended to.
        files: size in bytes and SHA-256 of each file.
    """
    return {
        name: Asset(f"{folder}/{name}", tuple(mirror + name for mirror in mirrors), f"sha256:{digest}", size)
        for name, (size, digest) in files.items()
    }


def parts(assets: Mapping[str, Asset]) -> tuple[Part, Part]:
    """The train and the test images of the four files, [N, H, W, 1]."""
    files = dict(zip(assets, fetch_all(assets.values()), strict=True))
    train, test = (
        Part(
            split,
            read(files[f"{prefix}-images-idx3-ubyte.gz"])[..., None],
            read(files[f"{prefix}-labels-idx1-ubyte.gz"]),
        )
        for split, prefix in PREFIXES.items()
    )
    return train, test


def read(path: Path) -> np.ndarray:
    """The uint8 array of a gzipped idx file: two zero bytes, type, number of axes, big-endian sizes, values.

    Raises:
        PipelineError: not such a file, or not as many values as it says.
    """
    again = f"fix: delete {path} and run again"
    try:
        with gzip.open(path) as file:
            zeros, kind, num_axes = struct.unpack(">HBB", file.read(4))
            if zeros != 0 or kind != 8 or not 1 <= num_axes <= 4:
                raise PipelineError(f"{path}: not an idx file of bytes; {again}")
            shape = struct.unpack(f">{num_axes}I", file.read(4 * num_axes))
            size = int(np.prod(shape, dtype=object))
            if size > MAX_BYTES:
                raise PipelineError(f"{path}: promises {size} values, more than {MAX_BYTES}; {again}")
            values = file.read(size + 1)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise PipelineError(f"{path}: damaged or cut short ({error}); {again}") from None
    if len(values) != size:
        raise PipelineError(f"{path}: not the {size} values that it promises; {again}")
    return np.frombuffer(values, np.uint8).reshape(shape)
