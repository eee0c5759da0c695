import gzip
import struct

import numpy as np
import pytest

from pipeline.data.idx import read
from pipeline.errors import PipelineError


def idx(values):
    """The file format of the MNIST page: 0, 0, 8 (bytes), number of axes, sizes, values."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0"), "not an idx file of bytes"),  # type 0x0d: float
        (gzip.compress(b"\0\0\x08\x09"), "not an idx file of bytes"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcd"), "not the 5 values"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcdef"), "not the 5 values"),
        (gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12), "promises 79228162458924105385300197375 values"),
        (gzip.compress(b"\0\0"), "damaged or cut short"),
        (gzip.compress(idx(np.zeros(1000, np.uint8)))[:-9], "damaged or cut short"),
        (b"<html>", "damaged or cut short"),
    ],
)
def test_damaged_idx_files_are_one_line(tmp_path, content, told):
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=rf"x\.gz: .*{told}.*fix: ") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_idx_files_of_each_number_of_axes_are_read(tmp_path):
    for shape in ((5,), (2, 3), (2, 3, 4), (2, 3, 4, 1), (0,)):
        values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        (tmp_path / "x.gz").write_bytes(gzip.compress(idx(values)))
        assert np.array_equal(read(tmp_path / "x.gz"), values)
