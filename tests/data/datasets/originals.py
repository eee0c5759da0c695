"""Fake originals: small images in the archives that a source publishes, served from this machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from pipeline.data.download import Asset
from tests.data.servers import Server


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """[H, W, 3] uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(values: np.ndarray) -> bytes:
    """A picture or a map of 8 or 16 bits."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def palette_png(values: np.ndarray) -> bytes:
    """A map whose values are indices of a palette in which no colour is its index."""
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette([255 - i // 3 for i in range(768)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(values: np.ndarray) -> bytes:
    """A lossy picture."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: Mapping[str, bytes], mode: str = "w") -> bytes:
    """A tar archive; `w:gz` compresses it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def serve(server: Server, monkeypatch: pytest.MonkeyPatch, source: ModuleType, archives: Mapping[str, bytes]) -> None:
    """Makes a source's assets those archives, at this machine's address."""
    assert set(archives) <= set(source.ASSETS)
    for key, content in archives.items():
        name = source.ASSETS[key].name
        asset = Asset(
            name=name,
            urls=(server.serve(name, content),),
            checksum=f"sha256:{hashlib.sha256(content).hexdigest()}",
            size=len(content),
        )
        monkeypatch.setitem(source.ASSETS, key, asset)
