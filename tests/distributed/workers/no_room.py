"""Run by torchrun: ``-m sbcore.train`` on a disk that is full when the folder is locked."""

import os

from sbcore.train import command as program

fsync = os.fsync


def fail(descriptor):
    os.fsync = fsync
    raise OSError(28, "No space left on device")


if __name__ == "__main__":
    os.fsync = fail
    program.main()
