"""All variants in one process group, step by step in turn, on random tokens of real lengths.

``torchrun -m sbcore.ablation``. A machine's speed drifts by more than variants differ; steps that
lie seconds apart share that drift, so the ratio of their times holds.
"""
