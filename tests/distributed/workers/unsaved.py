"""Run by torchrun: ``-m sbcore.train``, whose disk is full when the model is to be written."""

from sbcore.train import command as program


def full_disk(*_, **__):
    raise OSError("no space left")


if __name__ == "__main__":
    program.save_model = full_disk
    program.main()
