"""Any image dataset of the Hugging Face hub, or a folder laid out like one; the options say which column is what.

Rows are streamed: nothing but the store is kept on disk, and the images' bytes are stored as the repository has them.
Repositories that come with code are refused by the `datasets` package itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pipeline.data.columns import SPLIT_NAMES, BoxFormat, Mapped, Part, Row, Table, write
from pipeline.data.download import cache, is_offline
from pipeline.data.ingest import OnError
from pipeline.errors import ParamsError, PipelineError, did_you_mean
from pipeline.structures import SPLITS, DatasetInfo

if TYPE_CHECKING:
    from datasets import IterableDataset

Share = Annotated[float, Field(ge=0, lt=1)]


def prepare(
    folder: Path,
    *,
    seed: int,
    repository: str,
    columns: dict[str, str],
    on_error: OnError = "fail",
    config: str | None = None,
    revision: str | None = None,
    splits: dict[str, str] | None = None,
    val: Share = 0.1,
    test: Share = 0.1,
    classes: list[str] | None = None,
    semantic_classes: list[str] | None = None,
    box_format: BoxFormat = "xyxy",
    relative_boxes: bool = False,
    licence: str | None = None,
    attribution: str | None = None,
) -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the splits that the repository does not have.
        repository: its name on the hub, such as `uoft-cs/cifar10`, or a folder.
        columns: the column of each role: image, id, file_name, label, bbox, category, mask, area, iscrowd, semantic,
            captions, target, group, split; `objects.bbox` is a column inside another.
        on_error: what a faulty row or annotation does.
        config: which of the repository's datasets, where it has several.
        revision: commit, tag or branch; the commit that it stands for is noted in the store. Only a commit makes sure
            that the data are the same tomorrow.
        splits: the repository's split for train, val and test; without it those of the usual names.
        val: share of the train rows that are the val split where there is none; 0: there is none.
        test: the same of the test split.
        classes: names of the classes; without them those that the repository gives, or that occur.
        semantic_classes: names of the values of the label maps.
        box_format: what the four numbers of a box are.
        relative_boxes: whether they are shares of the image's width and height.
        licence: the terms of the data; without it those that the repository states.
        attribution: who made them; without it the repository's name.
    """
    where = f"params.yaml datasets.{folder.name}.options"
    is_folder = Path(repository).is_dir()
    if is_offline() and not is_folder:
        command = f"hf download {repository} --repo-type dataset" + (f" --revision {revision}" if revision else "")
        raise PipelineError(
            f"{where}.repository: {repository} is on the hub, and PIPELINE_OFFLINE is set; fix: where there is a "
            f"network run `{command} --local-dir FOLDER`, bring the folder here and write `repository: FOLDER`"
        )
    with _told(f"{where}.repository: {repository}"):
        commit, stated = (None, "") if is_folder else _stated(repository, revision)
        streams = _streams(repository, config, commit)
    chosen = _chosen(list(streams), splits, where)
    first = streams[chosen[0][0]]
    features = first.features.to_dict()
    parts = [
        Part(name, split, partial(_rows, streams[name], repository, name), _num_rows(streams[name], name))
        for name, split in chosen
    ]
    mapped = Mapped(where, columns, classes or [], semantic_classes or [], box_format, relative_boxes, val, test)
    name = Path(repository).name if is_folder else repository
    info = DatasetInfo(
        name=folder.name,
        tasks=[],
        classes=[],
        channels=3,
        licence=licence or stated or "none stated",
        attribution=attribution or name,
        source=name if is_folder else f"https://huggingface.co/datasets/{repository}",
        checksum=f"commit {commit}" if commit else "",
    )
    write(folder, Table(parts, features, list(features)), mapped, info, seed=seed, on_error=on_error)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turns what the hub's packages raise, of many kinds, into one line without addresses that hold a token."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        line = re.sub(r"\?\S+|hf_\w+", "...", str(error).strip().partition("\n")[0])[:300]
        raise PipelineError(
            f"{what}: cannot be read ({type(error).__name__}: {line}); fix: correct repository, config and revision, "
            "or log in with `hf auth login` where it is private; PIPELINE_OFFLINE=1 says how to do without network"
        ) from None


def _stated(repository: str, revision: str | None) -> tuple[str, str]:
    """The commit that a tag or branch stands for just now, and the licence on the repository's card."""
    from huggingface_hub import HfApi

    found = HfApi().dataset_info(repository, revision=revision, timeout=60)
    licence = found.card_data.get("license") if found.card_data else None
    return str(found.sha), ", ".join(licence) if isinstance(licence, list) else str(licence or "")


def _streams(repository: str, config: str | None, commit: str | None) -> dict[str, IterableDataset]:
    """The rows of each split, not yet read, images undecoded."""
    import datasets

    place = str(cache() / "huggingface")  # of its locks; rows are not kept
    streams = datasets.load_dataset(repository, config, revision=commit, streaming=True, cache_dir=place)
    return {name: _undecoded(stream) for name, stream in streams.items()}


def _undecoded(stream: IterableDataset) -> IterableDataset:
    import datasets

    if stream.features is None:
        stream = stream._resolve_features()
    for name, feature in stream.features.items():
        if isinstance(feature, datasets.Image):
            stream = stream.cast_column(name, datasets.Image(decode=False))
    return stream


def _chosen(have: list[str], wanted: dict[str, str] | None, where: str) -> list[tuple[str, str]]:
    """Pairs of the repository's split and ours."""
    if wanted is None:
        chosen = [(name, SPLIT_NAMES[name.lower()]) for name in have if name.lower() in SPLIT_NAMES]
        left = [name for name in have if name.lower() not in SPLIT_NAMES]
        if left or len({split for _, split in chosen}) < len(chosen):
            raise ParamsError(
                f"{where}.splits: it is not plain which of {', '.join(have)} are train, val and test; "
                "fix: write `splits: {train: ..., val: ..., test: ...}`, without those that are to be left out"
            )
        return sorted(chosen, key=lambda pair: SPLITS.index(pair[1]))
    for split, name in wanted.items():
        if split not in SPLITS:
            raise ParamsError(f"{where}.splits.{split}: unknown key; {did_you_mean(split, SPLITS)}")
        if name not in have:
            raise ParamsError(f"{where}.splits.{split}: no split {name!r}; {did_you_mean(name, have)}")
    return [(wanted[split], split) for split in SPLITS if split in wanted]


def _num_rows(stream: IterableDataset, name: str) -> int | None:
    known = stream.info.splits or {}
    return known[name].num_examples or None if name in known else None


def _rows(stream: IterableDataset, repository: str, name: str, columns: list[str]) -> Iterator[Row]:
    with _told(f"{repository} {name}"):
        for number, row in enumerate(stream.select_columns(columns) if columns else stream):
            yield f"{name}:{number}", {column: _with_bytes(row[column]) for column in columns}


def _with_bytes(value: Any) -> Any:
    """An image that the stream names but does not hold, read; anything else as it is."""
    if not (isinstance(value, dict) and value.keys() == {"bytes", "path"} and value["bytes"] is None and value["path"]):
        return value
    from datasets.utils.file_utils import xopen

    with xopen(value["path"], "rb") as file:
        return {"bytes": file.read(), "path": os.path.basename(value["path"])}
