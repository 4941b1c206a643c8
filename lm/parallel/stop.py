"""Signals in; an end that all processes of a run come to at the same point out."""

import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from lm.parallel.processes import Processes

_ASKED, _POINT = "stop", "point/"


class Stop:
    """Signals that ask for an end: before the first step at once, later when the step is done and saved.

    Several processes ask `is_asked` in the same order, so that its calls are points of the run that they can name.
    One that learns of a signal posts the next point that it has not passed; all stop at the last of these.

    number: of the signal that is obeyed; 0: none.
    """

    def __init__(self) -> None:
        self.number = 0
        self.is_graceful = False
        self._processes: Processes | None = None  # while they come together
        self._signal = 0  # that came to this process
        self._lock = threading.Lock()
        self._passed, self._next, self._point = 0, None, None
        self._is_agreed = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def join(self, processes: Processes) -> None:
        """Obey signals that come to any of these processes, and that came to this one while they came together."""
        self._processes = processes
        if self._signal and processes.count == 1:
            self._take(self._signal, None)
        processes.watch(self._look)

    def _take(self, number: int, frame: object) -> None:
        if self._processes is None or self._processes.count > 1:
            self._signal = number  # the thread that talks to the others finds it
            return
        self.number = number
        if not self.is_graceful:
            sys.exit(128 + number)

    def _look(self, board: Mapping[str, Any]) -> None:
        """Take part in the agreement, given what all have posted."""
        if self._signal and not self.is_graceful:
            words = f"process {self._processes.index} was stopped, and with it the run."
            self._processes.leave(128 + self._signal, words)
        if self._signal and _ASKED not in board:
            self._processes.post(_ASKED, self._signal)
        if _ASKED in board and self._next is None:
            with self._lock:
                self._next = self._passed + 1
            self._processes.post(f"{_POINT}{self._processes.index}", self._next)
        points = [value for name, value in board.items() if name.startswith(_POINT)]
        if len(points) == self._processes.count and not self._is_agreed.is_set():
            self._point, self.number = max(points), board[_ASKED]
            self._is_agreed.set()

    def is_asked(self) -> bool:
        """Say whether to end here."""
        if self._processes.count == 1:
            return self.number != 0
        with self._lock:
            self._passed += 1
            passed, soonest = self._passed, self._next
        if soonest is None or passed < soonest:
            return False
        self._is_agreed.wait()
        return passed >= self._point
