"""The order of blocks for whole packs on a CPU: ties of both zeros, no numbers, bands, parts."""

import pytest
import torch

from sbkernels import select_blocks
from sbkernels.moba import ranking
from sbkernels.moba.bands import ROWS_PER_BAND, bands_of, neighbours
from sbkernels.moba.ranking import best_columns

LENGTHS = (90, 0, 1300, 7, 33, 64)


def pack_of(lengths, *, seed: int):
    generator = torch.Generator().manual_seed(seed)

    def integers(heads):  # scores are exact, many are equal
        return torch.randint(-3, 4, (sum(lengths), heads, 5), generator=generator).float()

    return integers(4), integers(2), torch.tensor([0, *lengths]).cumsum(0).int()


def select(q, k, cu_seqlens, top_k, *, block_size, backend="torch"):
    return select_blocks(
        q,
        k,
        cu_seqlens,
        top_k,
        block_size=block_size,
        max_seqlen=int(cu_seqlens.diff().max()),
        backend=backend,
    ).blocks


@pytest.mark.parametrize("num_columns", [1, 3, 8])
def test_best_columns_are_those_of_a_stable_sort(num_columns):
    values = torch.tensor([float("inf"), 3.5, 1e-45, 0.0, -1e-45, -2.0, -torch.inf])
    scores = values[torch.randint(7, (2, 200, 8), generator=torch.Generator().manual_seed(0))]
    wanted = scores.sort(dim=2, descending=True, stable=True).indices[..., :num_columns]
    assert torch.equal(torch.from_numpy(best_columns(scores.numpy(), num_columns)), wanted)


def test_zeros_of_either_sign_are_equal():
    k = torch.tensor([0.0, -0.0, 0.0, -0.0, 1.0]).view(5, 1, 1)
    for sign in (1.0, -1.0):
        q, ends = torch.full((5, 1, 1), sign), torch.tensor([0, 5], dtype=torch.int32)
        assert select(q, k, ends, 5, block_size=1)[0, -1].tolist() == [4, 0, 1, 2, 3]


@pytest.mark.parametrize("value", [float("nan"), -float("nan")])
def test_keys_that_are_no_numbers_come_first_for_all_later_rows_and_for_no_others(value):
    q, k, ends = pack_of(LENGTHS, seed=1)
    clean = select(q, k, ends, 5, block_size=16)
    k[90 + 620] = value  # in block 38 of the third sequence, which ends before its row 624
    spoiled = select(q, k, ends, 5, block_size=16)
    later = slice(90 + 624, 90 + 1300)
    assert (spoiled[:, later, 1] == 38).all()
    assert torch.equal(spoiled[:, : later.start], clean[:, : later.start])
    assert torch.equal(spoiled[:, later.stop :], clean[:, later.stop :])


@pytest.mark.parametrize("value", [float("nan"), -float("nan")])
def test_a_query_that_is_no_number_takes_the_first_blocks(value):
    q, k, ends = pack_of(LENGTHS, seed=1)
    q[90 + 620] = value
    blocks = select(q, k, ends, 5, block_size=16)
    assert blocks[:, 90 + 620].tolist() == [[38, 0, 1, 2, 3]] * 4


@pytest.mark.parametrize("block_size", [1, 16, 48, 700])  # bands begin within blocks, and reverse
@pytest.mark.parametrize("most_scores", [1, 3000, 1 << 30])
def test_bands_alone_in_parts_and_all_together_rank_alike(block_size, most_scores, monkeypatch):
    q, k, ends = pack_of(LENGTHS, seed=block_size)
    k *= block_size  # so that means are exact, too
    top_k = torch.tensor([3, 1, 9, 4, 1, 200], dtype=torch.int32)
    wanted = select(q, k, ends, top_k, block_size=block_size, backend="reference")
    monkeypatch.setattr(ranking, "MOST_SCORES", most_scores)
    assert torch.equal(select(q, k, ends, top_k, block_size=block_size), wanted)


def test_long_sequences_share_with_none_and_short_ones_with_their_neighbours():
    lengths = (64, 96, 0, 65536, 32, 128)
    bands = list(bands_of(lengths, [8] * len(lengths), block_size=32))
    groups = list(neighbours(bands, 1 << 16))
    assert [band for group in groups for band in group] == bands
    assert bands[-1].rows.stop == sum(lengths)
    for group in groups:
        rows, widest = sum(band.num_rows for band in group), max(band.num_blocks for band in group)
        assert len(group) == 1 or rows * widest <= 1 << 16
    assert len(groups[0]) > 2
    assert groups[-2] == [bands[-3]]
    assert bands[-3].num_rows == ROWS_PER_BAND
