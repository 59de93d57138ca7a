"""What the fork server imports before its first rank.

Nothing of it is garbage, and looking for some would make every rank copy all of it.
"""

import gc
from importlib import import_module

from sbcore.collector import collect_seldom

MODULES = [
    "sbcore.train.command",
    "sbcore.ablation.__main__",
    "sbcore.train.rehearsal",
    "sbcore.latency.floor",
    "pandas",  # pyarrow imports it for its first table
    "pyarrow.dataset",
    "torch.optim.adamw",
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.qwen3.modeling_qwen3",
    "snakemake.cli",
]

collect_seldom()
for module in MODULES:
    import_module(module)
gc.freeze()
