"""What torchrun starts on each rank of a measurement: light until garbage is looked for seldom."""

from sbcore.collector import collect_seldom


def start() -> None:
    """Runs `sbcore.latency.floor`."""
    collect_seldom()
    from sbcore.latency.floor import main

    main()


if __name__ == "__main__":
    start()
