"""Signals are answered though the main thread cannot, and not any more after the block."""

import signal
import subprocess
import sys

import pytest

from sbcore.train.signals import answering_signals

BUSY = """
import ctypes, os
from sbcore.train.signals import answering_signals

library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
library.pthread_mutex_init(mutex, None)
library.pthread_mutex_lock(mutex)
with answering_signals(lambda name: os.write(1, name.encode())):
    os.write(1, b"ready ")
    library.pthread_mutex_lock(mutex)  # for ever, in C: handlers in Python never run
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_main_thread_that_stands_in_a_call_does_not_keep_it_from_being_answered(number):
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        assert process.stdout.read(6) == b"ready "
        process.send_signal(number)
        assert process.stdout.read().decode() == number.name
        assert process.wait(30) == 128 + number


EARLY = """
import os, signal
from sbcore.train.signals import answering_signals

set_handler = signal.signal
def ended_at_once(number, handler):
    before = set_handler(number, handler)
    os.kill(os.getpid(), number)
    return before
signal.signal = ended_at_once
with answering_signals(lambda name: os.write(1, name.encode())):
    signal.pause()
"""


def test_a_signal_that_comes_while_handlers_are_set_is_answered():
    done = subprocess.run(
        [sys.executable, "-c", EARLY], capture_output=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == (b"SIGTERM", 128 + signal.SIGTERM)


def test_after_the_block_signals_are_as_before():
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with answering_signals(lambda _: None):
        assert not set(map(signal.getsignal, numbers)) & set(before)
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
