import operator
import os
import signal

import pytest

from pipeline.data import pool
from pipeline.errors import PipelineError


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(pool.os, "sched_getaffinity", lambda _: {0, 1})


def test_results_come_in_the_order_of_the_items():
    assert list(pool.ordered_map(operator.neg, range(40), chunk=3)) == [-n for n in range(40)]


def test_one_core_and_several_give_the_same(monkeypatch):
    many = list(pool.ordered_map(abs, range(-20, 20), chunk=7))
    monkeypatch.setattr(pool.os, "sched_getaffinity", lambda _: {0})
    assert list(pool.ordered_map(abs, range(-20, 20), chunk=7)) == many


def test_items_are_taken_only_as_results_are():
    taken = 0

    def items():
        nonlocal taken
        for number in range(100_000):
            taken += 1
            yield number

    results = pool.ordered_map(operator.neg, items(), chunk=4)
    assert [next(results) for _ in range(8)] == [-n for n in range(8)]
    results.close()
    # 2 processes, 3 chunks each under way of 4 items, then 8, 16, ...
    assert taken <= 2 * 4 + 2 * pool.AHEAD * 16


def test_few_items_stay_in_this_process():
    assert set(pool.ordered_map(process_of, range(16), chunk=16)) == {os.getpid()}
    assert os.getpid() not in set(pool.ordered_map(process_of, range(17), chunk=16))


def process_of(_):
    return os.getpid()


def test_blocks_cover_the_items_whatever_their_sizes():
    blocks = list(pool.block_map(sum, iter(range(100)), chunk=5))
    assert [item for part, _ in blocks for item in part] == list(range(100))
    assert all(total == sum(part) for part, total in blocks)


def test_error_in_a_worker_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(pool.ordered_map(divmod_zero, range(40), chunk=4))


def divmod_zero(number):
    return divmod(number, 0)


def test_a_crash_names_the_item():
    with pytest.raises(PipelineError, match=r"image 21: the process that worked on it crashed; fix: "):
        list(pool.ordered_map(die_at_21, range(40), chunk=4, name=lambda number: f"image {number}"))


def die_at_21(number):
    if number == 21:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_no_items_give_no_results():
    assert list(pool.ordered_map(abs, [])) == []
    assert list(pool.block_map(len, [])) == []
