import csv
import json

import pytest
from tiny_ablation import make_tiny_comparison

from sbcore.ablation.results import JOURNAL, STEPS, TABLE, read_steps
from sbcore.artifacts import git_state
from sbcore.train.lock import lock

pytestmark = pytest.mark.distributed
VARIANTS = ["baseline", "dense", "sab_dst", "sab_waterfill"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_comparison(tmp_path_factory.mktemp("comparison"))


@pytest.fixture(scope="module")
def done(tiny, torchrun, tmp_path_factory):
    """Both barriers, so that the model is made twice."""
    out = tmp_path_factory.mktemp("out")
    words = tiny.words(out, barriers="micro step")
    return out, torchrun("-m", "sbcore.ablation", *words)


def rows_of(out):
    with (out / TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_setting_has_a_row_per_variant(done):
    out, finished = done
    rows = rows_of(out)
    assert [(r["barrier"], r["variant"]) for r in rows] == [
        (barrier, variant) for barrier in ("micro", "step") for variant in VARIANTS
    ]
    assert all(int(row["steps"]) == 2 for row in rows)
    assert all(float(row["step_ms_p50"]) > 0 for row in rows)
    assert all(float(row["imbalance"]) >= 1 for row in rows)
    assert "host" not in rows[0]
    assert finished.stdout.count("sab_dst") == 2


def test_variants_of_a_round_saw_the_same_tokens(done):
    for steps in read_steps(done[0] / STEPS).values():
        rounds = sorted({step.round for step in steps})
        assert rounds == [0, 1, 2]
        for number in rounds:
            of_round = [step for step in steps if step.round == number]
            assert [step.variant for step in of_round] == VARIANTS
            assert len({step.num_tokens for step in of_round}) == 1
        assert len({step.num_tokens for step in steps}) == 3


def test_one_model_is_trained_by_all_in_turn(done):
    """Losses near that of a uniform guess over 61 words: nothing exploded, nothing is NaN."""
    for steps in read_steps(done[0] / STEPS).values():
        assert all(3 < step.loss < 6 for step in steps)


def test_the_manifest_says_what_the_numbers_rest_on(done):
    (path,) = done[0].glob("manifest-*.json")
    manifest = json.loads(path.read_text())
    assert manifest["run_id"] == rows_of(done[0])[0]["run_id"]
    assert [setting["rounds"] for setting in manifest["settings"]] == [2, 2]
    assert set(manifest["ceilings"]) == {"all_reduce", "matmul", "attention"}
    assert manifest["host_floor_ms.micro"] > 0
    assert manifest["host_floor_ms.step"] > 0
    assert manifest["commit"] == git_state()["commit"]
    assert len(manifest["inputs"]["some.csv"]) == 64


def test_the_same_command_again_goes_on_where_it_stopped(tiny, forked, tmp_path):
    """Rounds that are there stay, settings that have theirs are left out."""
    first = tiny.words(tmp_path, rounds=1)
    forked("-m", "sbcore.ablation", *first)
    again = tiny.words(tmp_path, rounds=2, barriers="micro step")
    forked("-m", "sbcore.ablation", *again)
    found = {
        (place.barrier, place.run_id): sorted({(step.round, step.measured) for step in steps})
        for place, steps in read_steps(tmp_path / STEPS).items()
    }
    assert [barrier for barrier, _ in found] == ["micro", "micro", "step"]
    assert list(found.values()) == [
        [(0, False), (1, True)],
        [(2, False), (3, True)],
        [(0, False), (1, True), (2, True)],
    ]
    before = (tmp_path / STEPS).read_bytes()
    forked("-m", "sbcore.ablation", *again)
    assert (tmp_path / STEPS).read_bytes() == before


def test_the_table_of_another_model_is_refused_in_one_line(tiny, forked, tmp_path):
    words = tiny.words(tmp_path / "out", shape="Qwen2.5-0.5B")
    refused = forked("-m", "sbcore.ablation", *words, num_ranks=1, check=False)
    assert refused.returncode != 0
    lines = [line for line in refused.stderr.splitlines() if "the table of another model" in line]
    assert len(lines) == 1
    assert "num_layers = 2" in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused_and_a_file_that_cannot_be_written_is_one_line(
    tiny, forked, tmp_path
):
    with lock(tmp_path):
        refused = forked("-m", "sbcore.ablation", *tiny.words(tmp_path), num_ranks=1, check=False)
    assert refused.stderr.splitlines()[-1].startswith(f"{tmp_path}: process "), refused.stderr
    assert "Traceback" not in refused.stderr
    (tmp_path / JOURNAL).mkdir()
    refused = forked("-m", "sbcore.ablation", *tiny.words(tmp_path), num_ranks=1, check=False)
    line = refused.stderr.splitlines()[-1]
    assert line == (f"{tmp_path / JOURNAL}: Is a directory. start again: measured rounds are kept.")
    assert "Traceback" not in refused.stderr


def test_forks_of_two_servers_have_hash_seeds_of_their_own(forked, workers):
    done = forked(workers / "hash_seed.py", num_ranks=4, num_seeds=2)
    assert len(set(done.stdout.split())) == 2


def test_eight_ranks_plan_and_decide_alike(tiny, repository, forked, workers, tmp_path):
    """The comparison that eight GPUs run, its shape and lengths made small; ranks differ in speed.

    Even and odd ranks have hash seeds of their own.
    """
    eight = tiny.with_variants_of(repository / "config/h100x8.yaml")
    words = tiny.words(tmp_path / "out", config=eight, barriers="micro step", global_batches=16)
    forked(workers / "ablation_decisions.py", tmp_path, *words, num_ranks=8, num_seeds=2)
    ranks = [json.loads((tmp_path / f"rank{r}.json").read_text()) for r in range(8)]
    assert all(rank == ranks[0] for rank in ranks)
    assert set(ranks[0]) == {"micro", "step"}
    tuned = {"dst", "lbb_dst", "sab_dst", "sab_waterfill"}
    for facts in ranks[0].values():
        assert {len(steps) for steps in facts["decisions"].values()} == {3}
        assert len(facts["decisions"]) == 9
        moved = {name for name, has_moved in facts["moved"].items() if has_moved}
        assert moved - {"dense"} == tuned, "equal decisions of a tuner that rests show nothing"
