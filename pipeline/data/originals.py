"""The unpacked files of a dataset's original archives; what is missing or unreadable there is one line of error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data import archives, download, images
from pipeline.data.download import Asset
from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Original:
    """An archive's members, unpacked, or a folder that is laid out like them.

    Attributes:
        root: the folder.
        name: of the archive, for messages.
    """

    root: Path
    name: str

    def path(self, member: str) -> Path:
        """A member by its name in the archive.

        Raises:
            PipelineError: it is not there.
        """
        path = self.root / member
        if not path.exists():
            raise PipelineError(
                f"{self.name}: it holds no {member!r}; fix: remove {self.root} and supply the whole {self.name} again"
            )
        return path

    def lines(self, member: str) -> list[tuple[int, str]]:
        """Number (from 1) and content of a text member's lines, stripped, without empty ones and `#` comments.

        Raises:
            PipelineError: it is not there, or holds no text.
        """
        path = self.path(member)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PipelineError(f"{self.name}/{member}: not readable as text ({error}); fix: supply it again") from None
        stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
        return [(number, line) for number, line in stripped if line and not line.startswith("#")]

    def members(self, folder: str, pattern: str) -> list[Path]:
        """Files below a folder in the order of their names, without the `._` files that macOS adds to archives.

        Raises:
            PipelineError: the folder is not there or none matches.
        """
        found = sorted(path for path in self.path(folder).glob(pattern) if not path.name.startswith("._"))
        if not found:
            raise PipelineError(f"{self.name}/{folder}: no file like {pattern!r} in it; fix: supply the whole archive")
        return found


def original(asset: Asset) -> Original:
    """The unpacked members of an archive, which is downloaded where the cache does not hold it."""
    return Original(download.extracted(asset), asset.name)


def unpacked(archive: Path) -> Original:
    """The members of an archive on this machine; unpacked into the cache where that was not done before."""
    digest = download.checksum_of(archive).partition(":")[2]
    folder = download.cache() / "extracted" / f"{archive.stem}-{digest[:12]}"
    with download.locked(folder):
        if not folder.exists():
            archives.extract(archive, folder)
    return Original(folder, archive.name)


def checksums(assets: Iterable[Asset]) -> str:
    """What info.json says of the archives that a dataset was read from."""
    return "; ".join(f"{asset.name} {asset.checksum or f'{asset.size} bytes'}" for asset in assets)


def read_map(path: Path) -> np.ndarray:
    """The [H, W] integers of a label or instance map.

    Raises:
        PipelineError: the file cannot be read or holds colours.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        return images.decode_values(path.read_bytes())
    except images.ImageError as error:
        raise PipelineError(f"{where}: {error}; fix: supply this map again") from None
    except OSError as error:
        raise PipelineError(f"{where}: {error.strerror or error}; fix: make it readable") from None
