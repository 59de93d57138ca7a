"""A training that stops for want of finite steps, and goes on from among those that it skipped."""

import json
import re
import warnings

import numpy as np
import pytest
import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from sbcore.train.checkpoints import ARRAYS
from sbcore.train.restore import read_index

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def words(tiny_run, tmp_path_factory):
    """Returns a function that gives the words of a training which stops after four such steps."""
    config = tmp_path_factory.mktemp("config") / "stage.json"
    stage = json.loads((tiny_run.folder / "config/train.sab_dst.json").read_text())
    stage["train"] |= {"max_nonfinite_steps": 4}
    config.write_text(json.dumps(stage))

    def make(out):
        words = tiny_run.words("sab_dst", out)
        words[words.index("--config") + 1] = str(config)
        return words

    return make


def tensors_of(path):
    entries = read_index(path).state_dict_metadata.items()
    state = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in entries
        if isinstance(entry, TensorStorageMetadata) and not name.startswith("random.")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of one process alone
        checkpoint.load(state, checkpoint_id=path, no_dist=True)
    return state


def losses_of(out):
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_checkpoint_among_skipped_steps_is_as_good_as_the_one_before_them(
    words, forked, workers, tmp_path
):
    stopped, unbroken = tmp_path / "stopped", tmp_path / "unbroken"
    spoiled = workers / "nonfinite.py"
    ended = forked(spoiled, "3,4,5,6", *words(stopped), check=False)
    (line,) = [line for line in ended.stderr.splitlines() if "step 4 in a row" in line]
    assert re.search(r"step 6: .* last good checkpoint: .*/step-0000000[46]\.$", line)
    assert ended.returncode == 2

    before, after = (stopped / f"checkpoints/step-0000000{step}" for step in (4, 6))
    ours, theirs = tensors_of(before), tensors_of(after)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.isfinite(tensor).all(), name
        assert torch.equal(tensor, theirs[name]), name
    assert {float(t) for name, t in ours.items() if name.endswith(".step")} == {3.0}
    with np.load(before / ARRAYS) as early, np.load(after / ARRAYS) as late:
        assert set(early) == set(late)
        assert late["non_finite"].tolist() == [3, 3]
        for name in set(early) - {"non_finite"}:
            np.testing.assert_array_equal(early[name], late[name])
        assert np.isfinite(early["coverage"][:, early["coverage_counts"] > 0]).all()

    forked("-m", "sbcore.train", *words(stopped), "--resume")
    forked(spoiled, "3,4,5", *words(unbroken))
    assert losses_of(stopped) == losses_of(unbroken)
    assert [step for step, loss in enumerate(losses_of(stopped)) if loss is None] == [3, 4, 5]
