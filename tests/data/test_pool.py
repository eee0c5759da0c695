import operator

import pytest

from pipeline.data import pool


def test_results_come_in_the_order_of_the_items():
    assert list(pool.ordered_map(operator.neg, range(40), chunk=3)) == [-n for n in range(40)]


def test_one_core_and_several_give_the_same(monkeypatch):
    many = list(pool.ordered_map(abs, range(-20, 20), chunk=7))
    monkeypatch.setattr(pool.os, "sched_getaffinity", lambda _: {0})
    assert list(pool.ordered_map(abs, range(-20, 20), chunk=7)) == many


def test_error_in_a_worker_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(pool.ordered_map(divmod_zero, range(40), chunk=4))


def divmod_zero(number):
    return divmod(number, 0)


def test_no_items_give_no_results():
    assert list(pool.ordered_map(abs, [])) == []
