"""Limits, counts, determinism and memory of the stage."""

import json
import tracemalloc

import pytest

from sbcore.errors import SparseBalanceError

TEN = {"text": "123456789"}  # ten tokens with the end token
LONG = {"text": "1" * 49}  # fifty


def test_a_longer_sample_than_allowed_stops_the_run(run):
    pattern = (
        r"data.jsonl:2: num_tokens = 50: over data.max_sample_tokens = 10\. raise the limit, or"
    )
    with pytest.raises(SparseBalanceError, match=pattern):
        run([TEN, LONG], max_sample_tokens=10)


def test_longer_samples_are_dropped_or_truncated_and_counted(run):
    summary, store = run([TEN, LONG], max_sample_tokens=10, on_long_sample="drop")
    assert (summary.num_dropped, summary.num_truncated, store.lengths.tolist()) == (1, 0, [10])
    summary, store = run([TEN, LONG], max_sample_tokens=10, on_long_sample="truncate")
    assert (summary.num_dropped, summary.num_truncated, store.lengths.tolist()) == (0, 1, [10, 10])


def test_truncation_that_cuts_the_answer_away_is_an_error(run):
    with pytest.raises(SparseBalanceError, match=r":1: num_target_tokens = 0: .* in 10 tokens"):
        run(
            [{"prompt": "p" * 20, "response": "r"}], max_sample_tokens=10, on_long_sample="truncate"
        )


def test_the_summary_counts_what_the_store_holds(run, tmp_path):
    summary, store = run([TEN, LONG, TEN])
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary.num_samples, summary.num_tokens) == (len(store), store.num_tokens) == (3, 70)
    targets = sum(int(store.sample(i)[1].sum()) for i in range(3))
    assert summary.num_target_tokens == targets == store.num_target_tokens.sum() == 67
    assert written["data_digest"] == store.digest
    assert written["vocab_size"] > max(store.sample(0)[0])


def test_the_same_input_gives_the_same_bytes(run, tmp_path):
    digests = set()
    for _ in range(2):
        run([TEN, LONG])
        digests.add(tuple(p.read_bytes() for p in sorted((tmp_path / "out").iterdir())))
    assert len(digests) == 1


def test_many_batches_keep_the_order(run):
    texts = ["x" * (1 + i % 50) for i in range(3000)]
    _, store = run([{"text": text} for text in texts])
    assert store.lengths.tolist() == [len(text) + 1 for text in texts]


def test_memory_does_not_grow_with_the_data_set(run, tmp_path):
    def peak(num_lines: int) -> int:
        path = tmp_path / f"{num_lines}.jsonl"
        line = json.dumps({"text": "some text"}) + "\n"
        path.write_text(line * num_lines)
        tracemalloc.start()
        run(path)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    run([TEN])  # what is imported at first use is not the data set's
    small, large = peak(5_000), peak(20_000)
    assert large < 1.2 * small, (small, large)
    assert large < 5e6
