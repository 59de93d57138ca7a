"""Mixture of Block Attention (arXiv 2502.13189): selection, coverage, attention, backends."""
