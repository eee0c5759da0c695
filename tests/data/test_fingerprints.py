import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from pipeline.data import fingerprints
from pipeline.data.ingest import _is_chosen, ingest
from pipeline.data.records import Record
from pipeline.data.store import Store, encode_png, to_row, writing
from pipeline.structures import Sample


def blurred(seed, size=(48, 64)):
    """An image of soft blobs."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC)


def prints_of(*pictures):
    return np.array([fingerprints.of(picture) for picture in pictures])


def test_a_fingerprint_is_the_mean_of_each_part():
    pixels = np.zeros((32, 48), np.uint8)
    pixels[:2, :3] = [[0, 60, 0], [30, 0, 0]]  # mean of the first part of 2 x 3: 15
    found = fingerprints.of(Image.fromarray(pixels))
    assert found[0] == 15
    assert found[1:].tolist() == [0] * 255


def test_changed_copies_are_near_and_other_images_are_not():
    originals = [blurred(seed) for seed in range(20)]
    changed = [
        blurred(0).resize((32, 24)),
        ImageEnhance.Brightness(blurred(1)).enhance(0.9),
        blurred(2).quantize(64).convert("RGB"),
    ]
    pairs = fingerprints.near_pairs(prints_of(*originals, *changed), np.zeros(23))
    assert pairs.tolist() == [[0, 20], [1, 21], [2, 22]]


def test_of_many_alike_each_is_paired_with_the_first_in_its_split_and_in_another():
    prints = np.repeat(prints_of(blurred(0)), 6, axis=0)
    pairs = fingerprints.near_pairs(prints, np.array([0, 0, 0, 1, 1, 1]))
    within = [[0, 1], [0, 2], [3, 4], [3, 5]]
    across = [[0, 3], [0, 4], [0, 5]]
    assert pairs.tolist() == sorted(within + across)


def test_flat_images_make_no_pairs_by_their_noise():
    flat = [Image.fromarray(np.full((16, 16), value, np.uint8)) for value in (10, 200, 90)]
    assert fingerprints.near_pairs(prints_of(*flat), np.zeros(3)).tolist() == []


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12), st.lists(st.integers(0, 2**64 - 1), max_size=12))
def test_near_hashes_are_found_as_by_comparing_all(values, noise):
    near = [values[0] ^ (bits & 0x8001_0200_0400_1810) for bits in noise]  # up to 7 bits apart
    hashes = np.array([*values, *near], np.uint64)
    slow = [
        [i, j]
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if bin(int(hashes[i]) ^ int(hashes[j])).count("1") <= fingerprints.MAX_DISTANCE
    ]
    found = [np.stack(part, 1).tolist() for part in fingerprints._near_hashes(hashes)]
    assert sorted(pair for part in found for pair in part) == slow


def test_no_images_make_no_pairs():
    assert fingerprints.near_pairs(np.empty((0, 256), np.uint8), np.empty(0)).shape == (0, 2)


@pytest.fixture
def folder(tmp_path, info):
    with writing(tmp_path / "toy", replace(info, tasks=[])) as writer:
        for number, (split, seed) in enumerate([("train", 0), ("train", 1), ("val", 0), ("test", 2), ("train", 0)]):
            writer.add(split, to_row(Sample(f"{number}", f"{number}.png", np.asarray(blurred(seed)))))
    return tmp_path / "toy"


def test_equal_images_are_grouped_over_all_splits(folder):
    store = Store(folder)
    prints = fingerprints.load(store)
    # in the order test, train, val: seeds 2; 0, 1, 0; 0
    assert np.array_equal(prints, prints_of(*(blurred(seed) for seed in (2, 0, 1, 0, 0))))
    assert fingerprints.equal_groups(store, prints) == [[1, 3, 4]]


def test_images_that_share_a_fingerprint_alone_are_not_equal(tmp_path, info):
    first = np.zeros((64, 64, 3), np.uint8)
    first[::2] = 200
    with writing(tmp_path / "toy", replace(info, tasks=[])) as writer:
        for number, pixels in enumerate((first, np.roll(first, 1, 0))):
            writer.add("train", to_row(Sample(f"{number}", "", pixels)))
    store = Store(tmp_path / "toy")
    prints = fingerprints.load(store)
    assert np.array_equal(prints[0], prints[1])
    assert fingerprints.equal_groups(store, prints) == []


def test_a_large_jpeg_in_two_splits_is_equal_though_ingest_reads_it_at_two_scales(tmp_path, info):
    columns = np.arange(400)
    stripes = np.stack([np.broadcast_to(columns * step % 256, (300, 400)) for step in (1, 3, 7)], -1)
    buffer = io.BytesIO()
    Image.fromarray(stripes.astype(np.uint8)).save(buffer, "JPEG")
    whole = next(str(number) for number in range(100) if _is_chosen(str(number)))
    records = [Record(split, name, "", buffer.getvalue()) for split, name in (("train", whole), ("test", "copy"))]
    ingest(tmp_path / "toy", replace(info, tasks=[]), records)
    store = Store(tmp_path / "toy")
    prints = fingerprints.load(store)
    assert not np.array_equal(prints[0], prints[1])
    assert fingerprints.equal_groups(store, prints) == [[0, 1]]


def test_fingerprints_of_ingest_are_those_of_the_store(tmp_path, info):
    records = [Record("train", str(seed), "", encode_png(np.asarray(blurred(seed)))) for seed in range(3)]
    ingest(tmp_path / "toy", info, records)
    kept = fingerprints.load(Store(tmp_path / "toy"))
    (tmp_path / "toy" / fingerprints.FILE).unlink()
    assert np.array_equal(kept, fingerprints.load(Store(tmp_path / "toy")))
