"""Batch plans: which rank runs which sequences in which micro-batch, and how good that is."""
