"""What the Snakefile asks: the frozen parts of its configuration, and what code a stage runs."""
