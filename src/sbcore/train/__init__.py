"""Training by a plan: ``torchrun -m sbcore.train``. Imports neither polars nor snakemake."""
