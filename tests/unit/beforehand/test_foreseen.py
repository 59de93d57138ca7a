"""What `sb config check` says of a run that would be refused after minutes, and what it lets be."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sbcore.beforehand import foreseen as limits
from sbcore.beforehand.check import check_beforehand
from sbcore.config.compute import AttentionConfig, LatencyGridConfig
from sbcore.config.latency_points import LEAST_CHECKED, num_budgets, num_checked
from sbcore.config.load import load_config
from sbcore.config.schema import Config
from sbcore.config.stages import ProfileLatencyStage, shared_stages
from sbcore.errors import ConfigError, SparseBalanceError
from sbcore.latency import measure
from sbcore.latency.grid import grid_points

SHORT = "demo: {lengths: {max_tokens: 64}}\n"

CASES = {
    "attention: {block_size: 32, backend: triton}\n": (
        ":1: attention.block_size = 32: backend triton takes 64, 128, 256, 512. use one of them, "
        "or attention.backend: torch."
    ),
    "topology: {device: cuda}\n": (
        "run.yaml: attention.block_size = 32: backend auto is triton on topology.device cuda"
    ),
    "attention:\n  block_size: 96\ntopology: {device: cuda}\n": ":2: attention.block_size = 96: ",
    "attention: {block_size: 64, backend: triton}\ntopology: {device: cpu}\n": (
        ":1: attention.backend = triton: needs a GPU, topology.device is cpu. "
    ),
    "attention: {block_size: 64, backend: triton}\nmodel: {shape: {head_dim: 256}}\n": (
        ":2: model.shape.head_dim = 256: backend triton takes heads of at most 128. "
    ),
    "attention: {block_size: 64, backend: triton}\nlatency: {lengths: [64, 512, 4096, 262144]}\n": (
        ":2: latency.lengths = [64, 512, 4096, 262144]: backend triton takes 2048 blocks in a "
    ),
    f"latency: {{lengths: [512]}}\n{SHORT}": (
        ":1: latency.lengths = [512]: the latency table needs two "
    ),
    f"latency: {{lengths: [33, 64], top_k: [2]}}\n{SHORT}": (
        ":1: latency.lengths = [33, 64]: with latency.top_k = [2] all of them take the same number "
    ),
    "latency: {lengths: [64, 4096], top_k: [1, 2]}\nattention: {top_k: 2}\n": (
        ":1: latency.lengths = [64, 4096]: with latency.top_k = [1, 2] only 2 points lie between "
    ),
    "train: {warmup_steps_unmeasured: 7}\nsampling: {max_steps: 7}\n": (
        ":1: train.warmup_steps_unmeasured = 7: the run has 7 steps at most, none is left to "
    ),
    "demo: {num_samples: 33}\n": (
        "run.yaml: train.warmup_steps_unmeasured = 3: the run has 3 steps at most, "
    ),
    "train:\n  trace_steps: [4, 100]\n": (
        ":2: train.trace_steps = [4, 100]: the run has 100 steps at most, counted from 0. "
    ),
    "topology: {device: cpu, max_memory_gib: 4}\n": (
        ":1: topology.max_memory_gib = 4.0: memory is measured on a GPU only, "
    ),
    "evaluate: {niah: {lengths: [1024, 8192]}, tasks: [niah]}\n": (
        ":1: evaluate.max_prompt_tokens = 4096: evaluate.niah has prompts of 8192 tokens, whose "
    ),
    "evaluate: {niah: {num_depths: 9}, tasks: [niah], max_examples: 8}\n": (
        ":1: evaluate.max_examples = 8: evaluate.niah.num_depths = 9, some would not be asked. "
    ),
}

TABLE = "latency:\n  table: config/latency/h100-qwen2.5-0.5b.parquet\n"

FINE = (
    "seed: 0\n",  # device auto: it may be a CPU
    "attention: {block_size: 32, backend: torch}\ntopology: {device: cuda}\n",
    "attention: {block_size: 32}\ntopology: {device: cpu}\n",
    f"variants: {{baseline: {{attention: dense}}}}\ntopology: {{device: cuda}}\n{TABLE}",
    "attention: {block_size: 64, backend: triton}\ntopology: {device: cuda}\n",
    f"{TABLE}  lengths: [512]\n",
    "train: {warmup_steps_unmeasured: 6}\nsampling: {max_steps: 7}\n",
    "topology: {max_memory_gib: 4}\n",
    "evaluate: {niah: {lengths: [8192]}, tasks: [recall]}\n",
)


def check(folder: Path, text: str) -> None:
    path = folder / "run.yaml"
    path.write_text(text)
    check_beforehand(load_config(path), [path])


@pytest.fixture(autouse=True)
def no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton as users have it: tests elsewhere run it without a GPU."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.mark.parametrize("text", CASES)
def test_what_is_refused_later_is_a_line_now(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, text)
    assert CASES[text] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("text", FINE)
def test_what_may_come_out_well_is_let_be(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(repository)  # paths start there
    check(tmp_path, text)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r":1: latency.table = no/where.parquet: no such file\. "):
        check(tmp_path, "latency: {table: no/where.parquet}\n")


def test_triton_without_a_gpu_is_fine_in_its_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    check(tmp_path, "attention: {block_size: 64, backend: triton}\ntopology: {device: cpu}\n")


def test_a_value_from_the_command_line_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1\n")
    config = Config.model_validate(
        {"seed": 1, "attention": {"block_size": 48, "backend": "triton"}}
    )
    with pytest.raises(ConfigError, match=r"^from the command line: attention.block_size = 48: "):
        check_beforehand(config, [path])


def test_limits_are_those_of_the_kernels() -> None:
    pytest.importorskip("triton", reason="the kernels' own limits need triton")
    from sbkernels.moba.triton import supported
    from sbkernels.moba.triton.select import MAX_NUM_BLOCKS

    assert limits.TRITON_BLOCK_SIZES == supported.BLOCK_SIZES
    assert limits.TRITON_MAX_HEAD_DIM == supported.MAX_HEAD_DIM
    assert limits.TRITON_MAX_NUM_BLOCKS == MAX_NUM_BLOCKS


rising = st.lists(st.integers(1, 3000), min_size=1, max_size=6, unique=True).map(sorted)


@given(lengths=rising, budgets=rising, top_k=st.integers(1, 64), block_size=st.integers(1, 512))
def test_points_are_counted_as_the_profile_measures_them(
    lengths: list[int], budgets: list[int], top_k: int, block_size: int
) -> None:
    attention = AttentionConfig(block_size=block_size, top_k=top_k)
    grid = LatencyGridConfig(lengths=lengths, top_k=budgets)
    whole = dict(shared_stages(Config(attention=attention, latency=grid)))["profile_latency"]
    assert isinstance(whole, ProfileLatencyStage)
    points = [p for p in grid_points(whole, pack_tokens=0, seed=0) if p.part == "attention"]
    assert num_checked(grid, attention) == sum(p.held_out for p in points)
    assert num_budgets(grid, attention) == len({p.top_k for p in points if not p.held_out})
    if num_checked(grid, attention) < LEAST_CHECKED:
        with pytest.raises(SparseBalanceError, match="points between them to check"):
            measure._grid(whole, torch.device("cpu"))
    else:
        assert len(measure._grid(whole, torch.device("cpu"))) > LEAST_CHECKED
