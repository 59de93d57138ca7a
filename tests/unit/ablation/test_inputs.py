import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sbcore.ablation.arguments import chosen_variants, parse_arguments
from sbcore.ablation.plans import PlannedSteps
from sbcore.ablation.settings import LengthSet, check_setting, read_length_set, settings
from sbcore.ablation.store import TARGET_STRIDE, RandomTokens
from sbcore.ablation.table_in_use import differences
from sbcore.beforehand.check import check_beforehand
from sbcore.config.load import load_config, parse_config
from sbcore.config.stages import plan_stage
from sbcore.errors import SparseBalanceError
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.plan import planner
from sbcore.plan.read import PlanFile
from sbcore.simulate.words import VARIANTS
from sbcore.train.batches import pack
from sbcore.types import Barrier

LENGTHS = np.array([1, 2, 16, 17, 18, 300, 4100, 40], dtype=np.int64)


@pytest.fixture(scope="module")
def latency():
    return AnalyticLatencyModel(
        block_size=16,
        num_layers=2,
        floor_ms=1.0,
        constant_ms=0.1,
        ms_per_token=0.01,
        coefficients=np.array([0.05, 1e-5, 7e-5, 1e-6]),
    )


def config_of(balancer="sab", **topology):
    values = {
        "attention": {"block_size": 16, "top_k": 4},
        "sampling": {"global_batch": 8, "max_steps": 5},
        "topology": {"num_ranks": 2, "max_tokens": 512} | topology,
        "variants": {"baseline": {"max_sequences": 1}, "packed": {"balancer": {"kind": balancer}}},
    }
    return parse_config(values, [])


def test_samples_have_their_lengths_and_count_their_targets():
    store = RandomTokens(LENGTHS, vocab_size=50, seed=1)
    for sample_id, length in enumerate(LENGTHS):
        tokens, is_target = store.sample(sample_id)
        assert (tokens.dtype, is_target.dtype) == (np.uint32, np.bool_)
        assert len(tokens) == len(is_target) == length
        assert tokens.max() < 50
        assert not is_target[0]
        assert is_target.sum() == store.num_target_tokens[sample_id]
    assert store.num_target_tokens[0] == 0
    assert store.num_target_tokens[6] == pytest.approx(4100 / TARGET_STRIDE, abs=1)


def test_samples_differ_and_are_the_same_on_every_rank():
    first, second = (RandomTokens(LENGTHS, vocab_size=50, seed=1) for _ in range(2))
    assert first.digest == second.digest
    assert all((first.sample(i)[0] == second.sample(i)[0]).all() for i in range(len(first)))
    assert (first.sample(5)[0][:40] != first.sample(7)[0]).any()
    assert RandomTokens(LENGTHS, vocab_size=50, seed=2).digest != first.digest
    with pytest.raises(IndexError, match="8 samples"):
        first.sample(8)


def test_the_trainer_packs_them():
    store = RandomTokens(LENGTHS, vocab_size=50, seed=1)
    batch = pack(store, [5, 2, 0], (0, 1, 2), torch.device("cpu"))
    assert batch.cu_seqlens.tolist() == [0, 300, 316, 317]
    assert len(batch.labels) == store.num_target_tokens[[5, 2, 0]].sum()


class Table(AnalyticLatencyModel):
    """A formula that says how far it was measured, as a table does."""

    longest = 512


def test_plans_are_those_that_the_planner_writes(latency, tmp_path, monkeypatch):
    lengths = np.random.default_rng(0).integers(20, 500, 60)
    stage = plan_stage(config_of(), "packed")
    index = tmp_path / "index.parquet"
    pq.write_table(pa.table({"sample_id": np.arange(60), "num_tokens": lengths}), index)
    (tmp_path / "latency.parquet").touch()
    table = Table(**vars(latency))
    monkeypatch.setattr(planner.TableLatencyModel, "read", lambda *_, **__: table)
    planner.plan_variant(stage, index=index, latency=tmp_path, out=tmp_path)
    written = PlanFile(tmp_path / "plan.parquet", index=index)

    planned = PlannedSteps(stage, lengths, table, profile=tmp_path)
    for name in ("num_steps", "num_ranks", "barrier", "block_size", "variant", "order_digest"):
        assert getattr(planned, name) == getattr(written, name), name
    for number in range(written.num_steps):
        ours, theirs = planned.step(number), written.step(number)
        assert ours.batch == theirs.batch
        assert (ours.sample_ids == theirs.sample_ids).all()
        assert (ours.lengths == theirs.lengths).all()
    with pytest.raises(IndexError, match="5 steps"):
        planned.step(5)


def test_all_variants_see_the_same_global_batches(latency):
    lengths = np.random.default_rng(0).integers(20, 500, 60)
    config = config_of(barrier="micro")
    stages = [plan_stage(config, name) for name in config.variants]
    plans = [PlannedSteps(stage, lengths, latency, profile=Path()) for stage in stages]
    assert plans[0].order_digest == plans[1].order_digest
    assert plans[0].digest != plans[1].digest
    assert all(len(pack) <= 1 for rank in plans[0].step(0).batch.micro_batches for pack in rank)


def test_lengths_are_cut_and_named_by_their_file(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("num_tokens\n100\n900\n")
    found = read_length_set(path, max_tokens=512)
    assert (found.name, found.lengths.tolist()) == ("mine", [100, 512])


def test_settings_of_one_barrier_stand_together():
    sets = [LengthSet(name, LENGTHS) for name in "ab"]
    found = list(settings(sets, barriers=list(Barrier)[:2], global_batches=[4, 8]))
    assert len(found) == 8
    assert len({s.words for s in found}) == 8
    assert [s.barrier for s in found] == sorted((s.barrier for s in found), key=list(Barrier).index)
    config = found[0].config(config_of(), num_ranks=4, num_rounds=9)
    assert (config.topology.num_ranks, config.topology.barrier) == (4, found[0].barrier)
    assert (config.sampling.global_batch, config.sampling.max_steps) == (4, 9)


@pytest.mark.parametrize(
    ("batch", "ranks", "rounds", "message"),
    [
        (4, 8, 1, r"--global-batches = 4: fewer sequences than the 8 ranks"),
        (4, 2, 3, r"--lengths = a: 8 sequences: 3 rounds of 4 need 12"),
    ],
)
def test_settings_that_cannot_run_are_refused(batch, ranks, rounds, message):
    (setting,) = settings(
        [LengthSet("a", LENGTHS)], barriers=[Barrier.STEP], global_batches=[batch]
    )
    with pytest.raises(SparseBalanceError, match=message):
        check_setting(setting, num_ranks=ranks, num_rounds=rounds)


def test_variants_are_chosen_by_name():
    config = config_of()
    assert chosen_variants(config, []) == ["baseline", "packed"]
    assert chosen_variants(config, ["baseline", "baseline"]) == ["baseline"]
    with pytest.raises(SparseBalanceError, match=r"--variants = 'pakced': unknown. Did you mean"):
        chosen_variants(config, ["baseline", "pakced"])
    with pytest.raises(SparseBalanceError, match="the baseline baseline is not among them"):
        chosen_variants(config, ["packed"])


def test_the_command_line_is_read():
    words = "--config c.yaml --latency t --out o --lengths a.csv b.csv --barriers micro step"
    words += " --global-batches 16 32 --rounds 20 --seconds 400 --shape Qwen2.5-3B"
    arguments = parse_arguments(words.split())
    assert [path.name for path in arguments.lengths] == ["a.csv", "b.csv"]
    assert arguments.barriers == [Barrier.MICRO, Barrier.STEP]
    assert (arguments.rounds, arguments.seconds) == (20, 400.0)
    assert (arguments.shape, arguments.variants) == ("Qwen2.5-3B", [])


def test_what_the_table_was_measured_with_is_said_where_it_differs():
    config = config_of()
    assert list(differences({"dtype": "float32", "device": "other"}, config)) == []
    (line,) = differences({"activation_checkpointing": "full", "dtype": "float32"}, config)
    assert line.endswith("measured with activation_checkpointing = full, here it is none")
    (line,) = differences({"keep_gathered": True}, config)
    assert line.endswith("measured with keep_gathered = True, here it is False")


NAMES = ["dense", "baseline", "baseline_packed", "lbb", "sab", "dst", "lbb_dst", "sab_dst"]


@pytest.mark.parametrize(("name", "num_ranks"), [("h100", 2), ("h100-3b", 2), ("h100x8", 8)])
def test_the_gpu_configurations_compare_all_variants(repository, name, num_ranks, monkeypatch):
    config = load_config(repository / f"config/{name}.yaml")
    assert config.topology.num_ranks == num_ranks
    assert list(config.variants) == [*NAMES, "sab_waterfill"]
    for variant, known in VARIANTS.items():
        ours = config.variants[variant].model_dump()
        if ours["tuner"]["kind"] != "fixed" and ours["balancer"]["kind"] == "sab":
            assert ours["balancer"].pop("online")
            ours["balancer"]["online"] = False  # the simulator plans once
        assert ours == known.model_dump()
    monkeypatch.chdir(repository)  # paths start there
    check_beforehand(config, [])


@pytest.mark.parametrize(("name", "count"), [("mooncake-conversation", 12_031), ("qmsum", 1_529)])
def test_length_sets_are_those_of_the_real_data(repository, real_data, name, count):
    found = read_length_set(repository / f"config/lengths/{name}.csv", max_tokens=1 << 20).lengths
    source = next((real_data / "lengths").glob(f"{name.replace('-', '_')}*"))
    rows = [line.rsplit(",", 2)[-2:] for line in source.read_text().splitlines()[1:]]
    assert found.tolist() == [int(a) + int(b) for a, b in rows]
    assert len(found) == count


def test_a_gpu_image_needs_only_what_it_has(repository):
    """Neither polars nor the workflow engine nor tracking are there."""
    code = """
import sys
sys.modules |= dict.fromkeys(["polars", "pandas", "snakemake", "mlflow"])
import sbcore.ablation.__main__
"""
    paths = [str(repository / "src"), str(repository / "kernels")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
