"""Signals that ask a long work to stop: it ends the step it is in, keeps what it has, and leaves."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether one of SIGNALS has come.

    Attributes:
        number: the signal's, 0 while none has come.
    """

    def __init__(self) -> None:
        self.number = 0

    def leave(self) -> NoReturn:
        """Ends the process as the signal asks: with 130 after SIGINT, with 143 after SIGTERM."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + self.number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number:  # a second time: at once
            self.number = number
            self.leave()
        self.number = number
        os.write(2, b"stopping after this step; once more to leave at once\n")  # print could meet itself in a handler


@contextmanager
def deferred() -> Iterator[Interruption]:
    """Yields an `Interruption` that notes the first of SIGNALS instead of stopping; a second one leaves at once.

    In a thread other than the main one, which gets no signals, nothing is ever noted.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption._note) for number in SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
