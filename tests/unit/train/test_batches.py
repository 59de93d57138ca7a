import numpy as np
import torch

from sbcore.train.batches import pack

CPU = torch.device("cpu")


class Store:
    samples = (
        (np.array([5, 6, 7, 8], np.uint32), np.array([True, False, True, True])),
        (np.array([9], np.uint32), np.array([True])),
        (np.array([1, 2], np.uint32), np.array([False, True])),
    )

    def sample(self, i):
        return self.samples[i]


def test_sequences_follow_each_other_and_restart_their_positions():
    batch = pack(Store(), [0, 1, 2], (4, 1, 0), CPU)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 1, 2]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 0, 1]]
    assert batch.cu_seqlens.tolist() == [0, 4, 5, 7]
    assert batch.cu_seqlens.dtype == torch.int32
    assert (batch.lengths, batch.sequences) == ((4, 1, 2), (4, 1, 0))
    assert batch.num_tokens == 7


def test_a_target_is_predicted_from_the_token_before_it_within_its_sequence():
    batch = pack(Store(), [0, 1, 2], (0, 1, 2), CPU)
    assert batch.predict_at.tolist() == [1, 2, 5]
    assert batch.labels.tolist() == [7, 8, 2]


def test_no_sequences_make_a_dummy_of_one_token():
    batch = pack(Store(), [], (), CPU)
    assert batch.is_dummy
    assert batch.input_ids.shape == (1, 1)
    assert batch.predict_at.tolist() == [0]
    assert batch.labels.tolist() == [0]


def test_a_sequence_of_one_token_is_no_dummy_and_has_no_target():
    batch = pack(Store(), [1], (0,), CPU)
    assert not batch.is_dummy
    assert batch.labels.tolist() == batch.predict_at.tolist() == []
