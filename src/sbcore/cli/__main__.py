"""`python -m sbcore.cli`, where the console script `sb` is not installed."""

from sbcore.cli import main

main()
