"""Signals are noted once and obeyed the second time."""

import os
import signal
import threading

import pytest

from pipeline.interruption import deferred


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "raised", "code"), [(2, KeyboardInterrupt, None), (15, SystemExit, 143)])
def test_the_first_signal_is_noted_and_said(number, raised, code, capfd):
    with deferred() as interruption:
        assert interruption.number == 0
        send(number)
        assert interruption.number == number
        assert capfd.readouterr().err == "stopping after this step; once more to leave at once\n"
        with pytest.raises(raised) as caught:
            interruption.leave()
        assert getattr(caught.value, "code", None) == code


@pytest.mark.parametrize(("first", "second", "raised"), [(2, 2, KeyboardInterrupt), (2, 15, SystemExit)])
def test_the_second_signal_is_obeyed_at_once(first, second, raised):
    def work():
        with deferred():
            send(first)
            send(second)
            pytest.fail("it went on")

    with pytest.raises(raised):
        work()


def test_afterwards_signals_are_what_they_were():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="x"), deferred():
        raise ValueError("x")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_thread_that_gets_no_signals_notes_none():
    found = []

    def work():
        with deferred() as interruption:
            found.append(interruption.number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0]
