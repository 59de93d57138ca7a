"""SIGTERM and SIGINT: a scheduler wants its nodes back, a user stops, torchrun ends all ranks.

A thread answers, since the main one may stand in a collective that the others have left.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ANSWERED = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def answering_signals(answer: Callable[[str], None]) -> Iterator[None]:
    """Makes both call ``answer`` with their name in a thread, then end the process.

    The exit code is 128 and the signal's number. The main thread goes on meanwhile, or waits on.
    For the main thread, where signals are set.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    # The pipe before the handlers, and after them: between the two a signal would be lost.
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in _ANSWERED}
    thread = threading.Thread(target=_answer, args=(told, answer), daemon=True, name="signals")
    thread.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(tell)
        thread.join()
        os.close(told)


def _answer(told: int, answer: Callable[[str], None]) -> None:
    """Waits for a signal's number in the pipe, whose other end is closed with the block."""
    while number := os.read(told, 1):
        if number[0] in _ANSWERED:
            try:
                answer(signal.Signals(number[0]).name)
            finally:
                os._exit(128 + number[0])
