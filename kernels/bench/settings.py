"""The cases of the public benchmark."""

from dataclasses import dataclass

# Lengths of documents as they come, 16 of them in 64K tokens.
PACKED = (512, 700, 900, 1300, 1500, 1800, 2100, 2600, 3000, 3500, 4200, 5000, 6100, 7300, 9000)
PACKED_LENGTHS = (*PACKED, 65536 - sum(PACKED))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One case of the benchmark; `length` counts tokens."""

    length: int
    block_size: int
    top_k: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    batch: int = 1


def _paper(length: int, top_k: int = 32) -> Setting:
    return Setting(
        length=length, block_size=256, top_k=top_k, num_heads=16, num_kv_heads=2, head_dim=128
    )


SETTINGS = {
    "64k": _paper(65536),
    "64k_d64": Setting(
        length=65536, block_size=256, top_k=32, num_heads=14, num_kv_heads=2, head_dim=64
    ),
    "64k_128x8": Setting(
        length=65536, block_size=128, top_k=8, num_heads=16, num_kv_heads=16, head_dim=128
    ),
    "32k": _paper(32768),
    "16k": _paper(16384),
    "8k": _paper(8192),
    "64k_k8": _paper(65536, 8),
    "64k_k16": _paper(65536, 16),
    "64k_32_8": Setting(
        length=65536, block_size=256, top_k=32, num_heads=32, num_kv_heads=8, head_dim=128
    ),
    "128k": _paper(131072),
    "256k": _paper(262144),
}


def selected_tflop(setting: Setting, *, backward: bool) -> float:
    """Returns the products that the chosen pairs need, 10^12 operations; of whole blocks.

    Two products of D forward and five more backward, which computes the scores again; no row does
    more than the causal half of its own block.
    """
    size, num_blocks = setting.block_size, setting.length // setting.block_size
    past = sum(min(setting.top_k - 1, own) for own in range(num_blocks))
    pairs = num_blocks * size * (size + 1) // 2 + past * size * size
    num_products = 7 if backward else 2
    return 2e-12 * num_products * setting.head_dim * setting.num_heads * pairs
