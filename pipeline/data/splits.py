"""Which split an image belongs to: by shares, with the same shares in every class, and groups kept whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from pipeline.errors import ParamsError


def assign(
    ids: Sequence[str],
    *,
    shares: Mapping[str, float],
    seed: int,
    labels: Sequence[Any] | None = None,
    groups: Sequence[str] | None = None,
) -> list[str]:
    """The split of each item.

    Items are dealt out in an order drawn from (seed, id) alone, so the result does not depend on the order of `ids`,
    and a few added or removed items move few others.

    Args:
        ids: of N items, all different.
        shares: of each split, adding up to 1.
        seed: of the order.
        labels: of the items; every label is split by the same shares.
        groups: of the items; a group is kept whole, and is stratified by its most frequent label.

    Raises:
        ParamsError: the shares do not add up to 1, an id stands twice, or a split would be empty.
    """
    if any(not 0 <= share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise ParamsError(f"split shares: must be within 0..1 and add up to 1 ({dict(shares)}); fix: correct them")
    units = list(ids) if groups is None else list(groups)
    if groups is None and len(set(units)) < len(units):
        seen: set[str] = set()
        twice = next(unit for unit in units if unit in seen or seen.add(unit))  # type: ignore[func-returns-value]
        raise ParamsError(f"split: the id {twice!r} stands twice; fix: give every image its own")
    sizes: dict[str, int] = {}
    votes: dict[str, dict[str, int]] = {}
    for index, unit in enumerate(units):
        sizes[unit] = sizes.get(unit, 0) + 1
        label = "" if labels is None else str(labels[index])
        votes.setdefault(unit, {})[label] = votes.setdefault(unit, {}).get(label, 0) + 1
    strata: dict[str, list[str]] = {}
    for unit, counts in votes.items():
        strata.setdefault(max(counts, key=lambda label: (counts[label], label)), []).append(unit)
    place: dict[str, str] = {}
    wanted = [name for name, share in shares.items() if share > 0]
    filled, total = dict.fromkeys(wanted, 0), 0
    for _, members in sorted(strata.items()):
        total += sum(sizes[unit] for unit in members)
        # in the drawn order the first go to the first split, and so on; what rounding leaves counts for the next class
        ends = list(accumulate(shares[name] * total - filled[name] for name in wanted))
        start = 0
        for unit in sorted(members, key=lambda unit: _draw(seed, unit)):
            middle = start + sizes[unit] / 2
            name = next((name for name, end in zip(wanted, ends, strict=True) if middle < end), wanted[-1])
            start += sizes[unit]
            filled[name] += sizes[unit]
            place[unit] = name
    empty = [name for name in wanted if not filled[name]]
    if empty and units:
        raise ParamsError(
            f"split {empty[0]}: a share of {shares[empty[0]]} leaves it without an image (there are {len(units)} in "
            f"{len(sizes)} {'groups' if groups is not None else 'images'}); fix: a larger share, or 0"
        )
    return [place[unit] for unit in units]


def units(ids: Sequence[str], groups: Sequence[str | None] | None = None) -> tuple[list[str], list[bool]]:
    """What stays together when images are dealt out: an image with its augmented copies, and all of a group.

    Args:
        ids: of N images; a copy's is `<image_id>~<number>`, with the id of its original.
        groups: of the images; None: of none, or of one. A copy is in the group of its original.

    Returns:
        The name of each image's unit, and whether it is a copy, which is never held out itself.
    """
    group_of = dict(zip(ids, [None] * len(ids) if groups is None else groups, strict=True))
    originals = [name.rpartition("~")[0] if name.rpartition("~")[0] in group_of else name for name in ids]
    named = [
        name if group is None else f"group {group}" for name, group in ((name, group_of[name]) for name in originals)
    ]
    return named, [original != name for original, name in zip(originals, ids, strict=True)]


def _draw(seed: int, unit: str) -> bytes:
    return hashlib.sha256(f"{seed}/{unit}".encode()).digest()
