"""How far a training is, for people who wait for it."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

Progress = Callable[[int, int], None]  # called with the iterations done, and all of them
PIECE_SECONDS = 0.2  # between calls, about; no number depends on it
_FIRST_PIECE = 10  # iterations
_LINE_SECONDS = 5.0  # between lines, where they cannot be written over


class Shown:
    """Writes a line such as "BiDSM-5: 120 of 200 iterations, 2 s, about 1 s left" over and over; in a log now and then.

    Args:
        title: what is trained.
        to: standard error by default.

    Attributes:
        stage: asked for the name of the stage that is trained, or "".
    """

    def __init__(self, title: str, to: TextIO | None = None) -> None:
        self._title, self._to = title, to or sys.stderr
        self._started = self._spoke = time.monotonic()
        self._first: tuple[int, float] | None = None
        self.stage: Callable[[], str] = str

    def __call__(self, step: int, steps: int) -> None:
        now, over = time.monotonic(), self._to.isatty()
        if self._first is None:
            self._first = step, now
        ended = step >= steps
        if not (over or ended or now > self._spoke + _LINE_SECONDS):
            return
        self._spoke = now
        title = ", ".join(filter(None, (self._title, self.stage())))
        text = f"{title}: {step:,} of {steps:,} iterations, {now - self._started:.0f} s"
        done, since = step - self._first[0], now - self._first[1]
        if done and not ended:
            text += f", about {since * (steps - step) / done:.0f} s left"
        self._to.write(f"\r{text:<78}" + "\n" * ended if over else f"{text}\n")
        self._to.flush()

    def note(self, text: str) -> None:
        """A line of its own."""
        self._to.write(f"{self._title}: {text}\n")
        self._to.flush()


def in_pieces(run: Callable[[int], None], step: int, steps: int, progress: Progress) -> None:
    """Calls ``run`` with numbers of iterations that take a little each, and ``progress`` before and after each."""
    piece = _FIRST_PIECE
    progress(step, steps)
    while step < steps:
        count, started = min(piece, steps - step), time.monotonic()
        run(count)
        step += count
        piece = max(1, int(PIECE_SECONDS * count / max(time.monotonic() - started, 1e-6)))
        progress(step, steps)
