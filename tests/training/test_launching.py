import os
import sys
import threading
from pathlib import Path

import pytest

from pipeline.errors import ParamsError
from pipeline.training import distributed, launching


def test_without_a_launcher_or_behind_one_nothing_is_launched(monkeypatch):
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("launched"))
    launching.launch("", "predict", "resnet")
    for variable in launching.LAUNCHED:
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            launching.launch("torchrun", "predict", "resnet")


def test_a_launcher_is_told_what_to_start(monkeypatch):
    called = []
    monkeypatch.setattr(os, "execve", lambda *arguments: called.append(arguments))
    launching.launch("accelerate launch --num_processes 2", "extract", "icons")
    ((program, arguments, environment),) = called
    assert Path(program) == Path(sys.executable).with_name("accelerate")
    assert arguments[1:] == ["launch", "--num_processes", "2", "-m", "pipeline", "extract", "icons"]
    assert environment["PIPELINE_LAUNCHED"] == "1"
    with pytest.raises(ParamsError, match=r"defaults\.launch: no program 'torchrum'; fix: install it"):
        launching.launch("torchrum", "extract", "icons")


@pytest.mark.parametrize("num", [1, 2, 3])
@pytest.mark.parametrize("end", [0, 1, 4, 7])
def test_shares_come_back_in_the_order_of_the_starts(monkeypatch, num, end):
    """Threads in place of processes, which meet at a barrier."""
    barrier, shares, found = threading.Barrier(num), {}, {}
    index_of = threading.local()

    class Processes:
        def __init__(self, compute):
            self.index = index_of.value

        def gather(self, value):
            shares[self.index] = value
            barrier.wait(10)
            return [shares[index] for index in range(num)]

    def one(index):
        index_of.value, worked = index, []
        results = launching.dealt(range(0, 10 * end, 10), lambda start: worked.append(start) or start + 1, None, "work")
        found[index] = results, worked

    monkeypatch.setattr(distributed, "Processes", Processes)
    monkeypatch.setenv("WORLD_SIZE", str(num))
    threads = [threading.Thread(target=one, args=(index,)) for index in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results for results, _ in found.values()] == [[10 * batch + 1 for batch in range(end)]] * num
    worked = [start for _, own in found.values() for start in own]
    assert sorted(worked) == list(range(0, 10 * end, 10))  # each once
