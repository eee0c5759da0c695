"""What a dataset's `inputs` names, as a folder on this machine: a path, an archive, or an address that is copied."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from pipeline.data import download, originals
from pipeline.data.download import Asset
from pipeline.data.formats import is_inside
from pipeline.errors import ParamsError, PipelineError
from pipeline.paths import written_whole
from pipeline.progress import progress

SCHEMES = {"https": "aiohttp", "s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs", "sftp": "paramiko"}
ARCHIVE = re.compile(r"\.(zip|tar|tgz|tar\.(gz|bz2|xz))$", re.I)
STAMPS = ("size", "ETag", "etag", "md5", "Content-MD5", "mtime", "LastModified", "Last-Modified", "created")


def folder_of(inputs: str) -> Path:
    """The folder that holds the files; copied into the shared cache from an address, and unpacked from an archive.

    A copy is made anew when the sizes, dates or ETags at the address are others than before; a web server's page of a
    folder tells names alone.

    Args:
        inputs: a path (that DVC may track), or an address of one of `SCHEMES`.

    Raises:
        ParamsError: no such address can be read.
        PipelineError: there is nothing, or it could not be copied.
    """
    scheme, separator, _ = inputs.partition("://")
    if separator:
        return _copied(inputs, scheme)
    path = Path(inputs)
    if not path.exists():
        if path.with_name(f"{path.name}.dvc").exists():
            raise PipelineError(f"{inputs}: not on this machine, DVC keeps it; fix: dvc pull {inputs}")
        raise PipelineError(f"{inputs}: no such folder; fix: write the path of your data")
    if path.is_dir():
        return path
    if not ARCHIVE.search(path.name):
        raise PipelineError(f"{inputs}: a file and no archive; fix: write the folder that it is in")
    return _only_folder(originals.unpacked(path).root)


def shown_address(inputs: str) -> str:
    """`inputs` as a report may show it: no secrets of an address, and of a path outside of the project its end."""
    if "://" in inputs:
        return download.redacted(inputs)
    path = PurePosixPath(inputs)
    return path.name if path.is_absolute() or ".." in path.parts else path.as_posix()


def _copied(address: str, scheme: str) -> Path:
    shown = download.redacted(address)
    if scheme not in SCHEMES:
        hint = "write https" if scheme == "http" else f"one of {', '.join(SCHEMES)}, or a path"
        raise ParamsError(f"inputs: {scheme}:// is not read ({shown}); fix: {hint}")
    if download.is_offline():
        raise PipelineError(f"{shown}: PIPELINE_OFFLINE is set; fix: copy it to this machine and write its path")
    try:
        import fsspec  # type: ignore[import-untyped]

        files, place = fsspec.url_to_fs(address)
    except ImportError:
        raise ParamsError(
            f"inputs: {scheme}:// needs a package ({shown}); fix: pip install {SCHEMES[scheme]}"
        ) from None
    try:
        if ARCHIVE.search(place.partition("?")[0]):
            return _only_folder(originals.unpacked(_copied_file(files, place, address)).root)
        return _copied_folder(files, place, shown)
    except PipelineError:
        raise
    except Exception as error:  # each file system raises errors of its own library
        raise _unreadable(shown, error) from None


def _unreadable(shown: str, error: Exception) -> PipelineError:
    return PipelineError(f"{shown}: {type(error).__name__} ({error}); fix: see that the address can be read")


def _key(address: str, details: list[tuple[str, dict[str, Any]]]) -> str:
    """A digest of an address and of all that tells whether what is there is what was there before."""
    stamps = [(name, [str(info[stamp]) for stamp in STAMPS if stamp in info]) for name, info in sorted(details)]
    return hashlib.sha256(repr((address, stamps)).encode()).hexdigest()[:16]


def _copied_file(files: Any, place: str, address: str) -> Path:
    name = PurePosixPath(place.partition("?")[0]).name
    key = _key(address, [(name, files.info(place))])
    if address.startswith("https://"):
        return download.fetch(Asset(f"inputs/{key}/{name}", (address,)))
    path = download.cache() / "files" / "inputs" / key / name
    if not path.exists():
        with written_whole(path) as temporary:
            files.get_file(place, str(temporary))
    return path


def _copied_folder(files: Any, place: str, shown: str) -> Path:
    found = files.find(place, detail=True)
    root = place.rstrip("/") + "/"
    is_web = root.startswith("https://")
    # a server's page of a folder has links that sort it, too, and perhaps one to itself
    listed = {name.removeprefix(root): info for name, info in found.items() if not (is_web and "?" in name)}
    details = [(name, info) for name, info in listed.items() if name and name != place]
    if not details:
        raise PipelineError(f"{shown}: no file there; fix: write the address of a folder or of an archive")
    names = {name: unquote(name) if is_web else name for name, _ in details}
    for name in names.values():
        if not is_inside(name):
            raise PipelineError(f"{shown}: a file outside of the folder ({name!r}); fix: name its own folder")
    key = _key(root, details)
    folder = download.cache() / "inputs" / f"{PurePosixPath(root).name}-{key}"
    with download.locked(folder):
        if not folder.exists():
            with written_whole(folder) as temporary:
                for listed_name, name in progress(names.items(), f"copy {shown}", total=len(names)):
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    if is_web:  # by what follows redirects to https alone
                        asset = Asset(f"inputs/{key}/{name}", (root + listed_name,), may_be_empty=True)
                        os.replace(download.fetch(asset), temporary / name)
                    else:
                        _get(files, root + name, temporary / name, shown)
    return folder


def _get(files: Any, place: str, path: Path, shown: str) -> None:
    try:
        files.get_file(place, str(path))
    except Exception as error:  # as above
        raise _unreadable(shown, error) from None


def _only_folder(folder: Path) -> Path:
    """The one folder that an archive holds, or the folder itself."""
    inside = [path for path in folder.iterdir() if path.name != "__MACOSX"]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
