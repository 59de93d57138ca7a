"""What the base model learns from: short samples of one length, all tasks in turn."""

from collections import Counter

import numpy as np
import pytest

from sbcore.demo.base_batches import draw_batches
from sbcore.demo.tasks import TASKS


def single_samples(demo_text, num_batches):
    batches = draw_batches(demo_text.training, 1, np.random.default_rng(0))
    return [next(batches) for _ in range(num_batches)]


def test_a_batch_holds_as_many_equal_samples_as_fit_and_one_at_least(demo_text):
    batches = draw_batches(demo_text.training, 1500, np.random.default_rng(0))
    for _ in range(30):
        count, length = next(batches).tokens.shape
        assert count == 1500 // length
    assert {len(batch.tokens) for batch in single_samples(demo_text, 30)} == {1}


def test_samples_are_short_and_of_many_lengths(demo_text):
    lengths = [batch.tokens.shape[1] for batch in single_samples(demo_text, 400)]
    assert np.median(lengths) == pytest.approx(66, rel=0.1)
    assert (min(lengths), max(lengths)) == (32, 160)
    assert np.percentile(lengths, [16, 84]) == pytest.approx([40, 109], rel=0.1)  # a sigma away


def test_any_nine_samples_in_a_row_hold_each_task_and_the_hard_ones_more_often(demo_text):
    batches, starts = draw_batches(demo_text.training, 4000, np.random.default_rng(0)), set()
    for _ in range(12):
        batch = next(batches)
        samples = batch.before // batch.tokens.shape[1]
        tasks = [int(batch.task[samples == sample][0]) for sample in range(len(batch.tokens))]
        names = [list(TASKS)[task] for task in tasks]
        for first in range(len(names) - 8):
            counts = Counter(names[first : first + 9])
            assert [counts[name] for name in TASKS] == [1, 3, 2, 2, 1]
        starts.add(tuple(names[:4]))
    assert len(starts) > 3


def test_half_of_a_sample_are_questions(demo_text):
    drawn = [batch for batch in single_samples(demo_text, 60) if batch.task[0] == 0]
    assert len(drawn) > 2
    for batch in drawn:  # question, answer, end
        assert len(batch.before) == 2 * (batch.tokens.shape[1] // 6)
