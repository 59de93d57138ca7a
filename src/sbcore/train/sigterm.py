"""SIGTERM: a scheduler wants its nodes back, or torchrun ends all ranks since one is gone.

A thread answers, since the main one may stand in a collective that the others have left.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_CODE = 128 + signal.SIGTERM


@contextmanager
def answering_sigterm(answer: Callable[[], None]) -> Iterator[None]:
    """Makes SIGTERM call ``answer`` in a thread and then end the process with `EXIT_CODE`.

    The main thread goes on meanwhile, or waits on. For the main thread, where signals are set.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    thread = threading.Thread(target=_answer, args=(told, answer), daemon=True, name="sigterm")
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, before)
        os.close(tell)
        thread.join()
        os.close(told)


def _answer(told: int, answer: Callable[[], None]) -> None:
    """Waits for the signal's number in the pipe, whose other end is closed with the block."""
    while number := os.read(told, 1):
        if number[0] == signal.SIGTERM:
            try:
                answer()
            finally:
                os._exit(EXIT_CODE)
