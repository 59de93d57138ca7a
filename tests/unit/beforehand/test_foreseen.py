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
TRITON = "attention: {block_size: 64, backend: triton}\n"
TABLE = "latency:\n  table: config/latency/h100-qwen2.5-0.5b.parquet\n"
CUDA = "topology: {device: cuda}\n"

BLOCKS = (
    "attention.block_size = {}: {} takes 64, 128, 256, 512. use one of them, or "
    "attention.backend: torch."
)
AUTO = "backend auto is triton on topology.device cuda, which"
FEW_POINTS = (
    "latency.lengths = [64, 4096]: with latency.top_k = {} only 2 points lie between those of the "
    "grid, and predictions are checked on 3. add lengths or budgets."
)
CASES = {
    "attention: {block_size: 32, backend: triton}\n": (
        f":1: {BLOCKS.format(32, 'backend triton')}"
    ),
    CUDA: f": {BLOCKS.format(32, AUTO)}",
    f"attention:\n  block_size: 96\n{CUDA}": f":2: {BLOCKS.format(96, AUTO)}",
    # The latency profile measures sparse attention for dense variants too, and
    f"variants: {{baseline: {{attention: dense}}}}\n{CUDA}": f": {BLOCKS.format(32, AUTO)}",
    # one sparse variant is enough to need the kernels where it is not measured.
    f"variants: {{baseline: {{}}, full: {{attention: dense}}}}\n{CUDA}{TABLE}": (
        f": {BLOCKS.format(32, AUTO)}"
    ),
    f"{TRITON}topology: {{device: cpu}}\n": (
        ":1: attention.backend = triton: needs a GPU, topology.device is cpu. use backend: auto, "
        "or another device."
    ),
    f"{TRITON}model: {{shape: {{head_dim: 256}}}}\n": (
        ":2: model.shape.head_dim = 256: backend triton takes heads of at most 128. make them "
        "narrower."
    ),
    f"{TRITON}model:\n"
    "  shape: {hidden_size: 520, num_attention_heads: 4, num_key_value_heads: 2}\n": (
        ":3: model.shape.head_dim = 130: backend triton takes heads of at most 128. make them "
        "narrower."
    ),
    f"{TRITON}latency: {{lengths: [64, 512, 4096, 131073]}}\n": (
        ":2: latency.lengths = [64, 512, 4096, 131073]: backend triton takes 2048 blocks in a "
        "sequence, 131072 tokens. raise attention.block_size, or leave out what is longer."
    ),
    f"latency: {{lengths: [512]}}\n{SHORT}": (
        ":1: latency.lengths = [512]: the latency table needs two lengths to interpolate between. "
        "add longer ones."
    ),
    f"latency: {{lengths: [33, 64], top_k: [2]}}\n{SHORT}": (
        ":1: latency.lengths = [33, 64]: with latency.top_k = [2] all of them take the same number "
        "of blocks, so none tells what a budget costs. add longer lengths or smaller budgets."
    ),
    "latency: {lengths: [64, 4096], top_k: [1, 2]}\nattention: {top_k: 2}\n": (
        f":1: {FEW_POINTS.format([1, 2])}"
    ),
    # Two budgets, the blocks of either length: enough to interpolate between, not to be checked.
    "latency: {lengths: [64, 4096], top_k: [128]}\n": f":1: {FEW_POINTS.format([128])}",
    "train: {warmup_steps_unmeasured: 7}\nsampling: {max_steps: 7}\n": (
        ":1: train.warmup_steps_unmeasured = 7: the run has 7 steps at most, none is left to "
        "measure. use fewer."
    ),
    "demo: {num_samples: 33}\n": (
        ": train.warmup_steps_unmeasured = 3: the run has 3 steps at most, none is left to "
        "measure. use fewer."
    ),
    "train:\n  trace_steps: [4, 100]\n": (
        ":2: train.trace_steps = [4, 100]: the run has 100 steps at most, counted from 0. name "
        "others."
    ),
    "topology: {device: cpu, max_memory_gib: 4}\n": (
        ":1: topology.max_memory_gib = 4.0: memory is measured on a GPU only, topology.device is "
        "cpu. set it to null."
    ),
    "evaluate: {niah: {lengths: [1024, 8192]}, tasks: [niah]}\n": (
        ":1: evaluate.max_prompt_tokens = 4096: evaluate.niah has prompts of 8192 tokens, whose "
        "middle would go. raise it."
    ),
    "evaluate: {ruler: {lengths: [512, 4097]}, tasks: [ruler]}\n": (
        ":1: evaluate.max_prompt_tokens = 4096: evaluate.ruler has prompts of 4097 tokens, whose "
        "middle would go. raise it."
    ),
    "evaluate: {niah: {num_depths: 9}, tasks: [niah], max_examples: 8}\n": (
        ":1: evaluate.max_examples = 8: evaluate.niah.num_depths = 9, some would not be asked. "
        "raise it."
    ),
}

FINE = (
    "seed: 0\n",  # device auto: it may be a CPU
    "attention: {block_size: 32, backend: torch}\ntopology: {device: cuda}\n",
    "attention: {block_size: 32}\ntopology: {device: cpu}\n",
    f"variants: {{baseline: {{attention: dense}}}}\n{CUDA}{TABLE}",
    f"{TRITON}{CUDA}",
    f"{TRITON}model: {{shape: {{head_dim: 128}}}}\n",
    f"{TRITON}model: {{path: config, shape: {{head_dim: 256}}}}\n",  # the shape is not read
    f"{TRITON}latency: {{lengths: [64, 512, 4096, 131072]}}\n",
    f"{TRITON}{TABLE}  lengths: [64, 131073]\n",
    f"{TABLE}  lengths: [512]\n",
    "latency: {lengths: [64, 4096], top_k: [1, 4]}\nattention: {top_k: 3}\n",  # checked on three
    "train: {warmup_steps_unmeasured: 6}\nsampling: {max_steps: 7}\n",
    "topology: {max_memory_gib: 4}\n",
    f"topology: {{device: cpu, max_memory_gib: 4}}\n{TABLE}",  # which may hold the memory
    "evaluate: {niah: {lengths: [8192]}, tasks: [recall]}\n",
    "evaluate: {niah: {lengths: [1024, 4096], num_depths: 8}, tasks: [niah], max_examples: 8}\n",
    "evaluate: {niah: {num_depths: 9}, ruler: {}, tasks: [ruler], max_examples: 8}\n",
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
def test_what_is_refused_later_is_a_line_now(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(repository)  # paths start there
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, text)
    assert str(caught.value).removeprefix(str(tmp_path / "run.yaml")) == CASES[text]


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
    text = f"{TRITON}topology: {{device: cpu}}\n"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    check(tmp_path, text)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ConfigError, match="needs a GPU"):
        check(tmp_path, text)


@pytest.mark.parametrize(
    ("backend", "device", "always", "somewhere"),
    [
        ("triton", "cpu", True, True),  # in its interpreter
        ("triton", "auto", True, True),
        ("auto", "cuda", True, True),
        ("auto", "auto", False, True),
        ("auto", "cpu", False, False),
        ("torch", "cuda", False, False),
        ("reference", "auto", False, False),
    ],
)
def test_where_attention_runs_in_triton(
    backend: str, device: str, always: bool, somewhere: bool
) -> None:
    config = Config.model_validate(
        {"attention": {"backend": backend}, "topology": {"device": device}}
    )
    assert (limits.takes_triton(config), limits.may_take_triton(config)) == (always, somewhere)


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
