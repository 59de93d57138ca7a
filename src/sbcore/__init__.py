"""SparseBalance: load-balanced long-context training with dynamic block-sparse attention."""

__version__ = "0.1.0"
