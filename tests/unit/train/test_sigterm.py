"""SIGTERM is answered though the main thread cannot, and not answered any more after the block."""

import signal
import subprocess
import sys

from sbcore.train.sigterm import EXIT_CODE, answering_sigterm

BUSY = """
import ctypes, os
from sbcore.train.sigterm import answering_sigterm

library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
library.pthread_mutex_init(mutex, None)
library.pthread_mutex_lock(mutex)
with answering_sigterm(lambda: os.write(1, b"answered")):
    os.write(1, b"ready ")
    library.pthread_mutex_lock(mutex)  # for ever, in C: handlers in Python never run
"""


def test_a_main_thread_that_stands_in_a_call_does_not_keep_it_from_being_answered():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        assert process.stdout.read(6) == b"ready "
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"answered"
        assert process.wait(30) == EXIT_CODE == 143


def test_after_the_block_signals_are_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with answering_sigterm(lambda: None):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1
