"""``torchrun -m sbcore.train``: light until garbage is looked for seldom, then `command`."""

from sbcore.collector import collect_seldom


def start() -> None:
    """Runs the command; what it imports takes a rank 4 s, and took 6 with garbage looked for."""
    collect_seldom()
    from sbcore.train.command import main

    main()


if __name__ == "__main__":
    start()
