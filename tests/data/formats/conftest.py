import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.formats import Fault, Source
from pipeline.data.records import Record


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """A few images need no further processes, which take seconds to start."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Writes an image of a colour that is its own, height before width."""

    def write(path: Path, height: int = 20, width: int = 30, seed: int = 0, **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([seed, *path.name.encode()]).integers(0, 256, (height, width, 3), np.uint8)
        buffer = io.BytesIO()
        kind = "JPEG" if path.suffix == ".jpg" else "PNG"
        Image.fromarray(pixels).save(buffer, kind, **options)
        path.write_bytes(buffer.getvalue())
        return path

    return write


@pytest.fixture
def parted() -> Callable[[Source], tuple[list[Record], list[str]]]:
    """The records of a source, and its faults as a user sees them."""

    def part(source: Source) -> tuple[list[Record], list[str]]:
        items = list(source.records)
        assert [str(i) for i in source.records] == [str(i) for i in items], "the records can be gone through twice"
        return [i for i in items if isinstance(i, Record)], [str(i) for i in items if isinstance(i, Fault)]

    return part
