"""The demo's lengths are known before it is made: what they make stages refuse is said, no more."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from sbcore.beforehand.check import check_beforehand
from sbcore.beforehand.demo import demo_mistakes, most_samples
from sbcore.config.data import DemoConfig, LengthDistribution
from sbcore.config.load import load_config
from sbcore.config.schema import Config
from sbcore.config.stages import DemoStage, PrepareStage, plan_stage
from sbcore.data.prepare import prepare
from sbcore.data.read import TokenStore
from sbcore.demo.dataset import make_demo
from sbcore.demo.lengths import draw_samples
from sbcore.errors import ConfigError, SparseBalanceError
from sbcore.plan import planner
from sbcore.plan.index import read_samples

SEEDS = (0, 3, 11, 2026)
SMALL = DemoConfig(
    num_samples=24,
    num_eval_samples=2,
    eval_lengths=[32],
    corpus_bytes=65_536,
    vocab_size=300,
    lengths=LengthDistribution(median_tokens=70, sigma=0.8, min_tokens=32, max_tokens=300),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Returns the folder of a small demo by its seed."""
    root = tmp_path_factory.mktemp("demos")
    with Progress(disable=True) as progress:
        for seed in SEEDS:
            make_demo(DemoStage(seed=seed, demo=SMALL), out=root / str(seed), progress=progress)
    return lambda seed: root / str(seed)


def run_prepare(config: Config, demo: Path, out: Path) -> None:
    with Progress(disable=True) as progress:
        prepare(
            PrepareStage(data=config.data),
            files=[demo / "train.jsonl"],
            tokenizer=demo / "tokenizer",
            out=out,
            progress=progress,
        )


def run_stages(config: Config, demo: Path, out: Path) -> None:
    """Goes through what looks at lengths: `prepare`, and the plan's look at its table."""
    run_prepare(config, demo, out)
    samples = read_samples(out / "index.parquet")
    table = SimpleNamespace(longest=config.latency.lengths[-1], extrapolates=lambda *_: np.zeros(1))
    planner._check_reach(plan_stage(config, "baseline"), samples, table, top_k=8)


def lines_of(folder: Path, text: str) -> list[str]:
    """Returns the lines on a configuration, each from its place in it on."""
    file = folder / "run.yaml"
    file.write_text(text)
    try:
        check_beforehand(load_config(file), [file])
    except ConfigError as error:
        return [line.removeprefix(str(file)) for line in str(error).splitlines()]
    return []


@pytest.mark.parametrize("seed", SEEDS)
def test_prepared_samples_have_exactly_the_drawn_lengths(
    seed: int, made: Callable[[int], Path], tmp_path: Path
) -> None:
    run_prepare(Config(), made(seed), tmp_path)
    drawn, _ = draw_samples(SMALL, seed=seed)
    assert TokenStore(tmp_path).lengths.tolist() == drawn.tolist()


@st.composite
def configurations(draw: Callable[..., Any]) -> Config:
    """Draws limits that lie at one of the samples, often the longest, or a token beside it."""
    seed = draw(st.sampled_from(SEEDS))
    lengths = np.sort(draw_samples(SMALL, seed=seed)[0]).tolist()
    some = st.sampled_from(lengths)
    edges = st.one_of(some, st.just(lengths[-1]), st.just(lengths[0]))
    limit = draw(edges) + draw(st.integers(-1, 1))
    end = draw(st.one_of(st.just(limit), edges)) + draw(st.integers(-1, 1))
    data = {
        "format": "messages",
        "max_sample_tokens": limit,
        "on_long_sample": draw(st.sampled_from(["error", "drop", "truncate"])),
        "on_bad_line": draw(st.sampled_from(["error", "skip"])),
    }
    factor = draw(st.sampled_from([1.0, 1.5, 2.25]))
    latency = {"lengths": [1, int(end / factor)], "max_extrapolation": factor}
    return Config.model_validate({"seed": seed, "demo": SMALL, "data": data, "latency": latency})


def refusal(config: Config, demo: Path, out: Path) -> str | None:
    try:
        run_stages(config, demo, out)
    except SparseBalanceError as error:
        return str(error)
    return None


@given(config=configurations())
@settings(max_examples=200)
def test_what_is_foreseen_is_what_stages_refuse(
    config: Config, made: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    said = [mistake.line for mistake in demo_mistakes(config)]
    refused = refusal(config, made(config.seed), tmp_path_factory.mktemp("data"))
    if config.data.on_long_sample == "truncate":  # answers may be cut off, lengths don't say where
        assert refused or not said
    else:
        assert bool(refused) == bool(said), refused


@pytest.mark.parametrize("seed", SEEDS)
def test_dropped_samples_are_counted(
    seed: int, made: Callable[[int], Path], tmp_path: Path
) -> None:
    data = {"on_long_sample": "drop", "max_sample_tokens": 70}
    config = Config.model_validate({"seed": seed, "demo": SMALL, "data": data})
    run_prepare(config, made(seed), tmp_path)
    assert most_samples(config) == len(TokenStore(tmp_path).lengths) < SMALL.num_samples


def test_both_limits_are_said_with_their_places(tmp_path: Path) -> None:
    text = "seed: 4\ndemo: {num_samples: 320, lengths: {max_tokens: 16384}}\n"
    lengths, _ = draw_samples(
        DemoConfig(num_samples=320, lengths=LengthDistribution(max_tokens=16384)), seed=4
    )
    count, longest = int((lengths > 4096).sum()), int(lengths.max())
    assert 1 < count < 20
    limit, grid = lines_of(tmp_path, text)
    assert limit == (
        f": data.max_sample_tokens = 4096: {count} of the demo's 320 samples are longer, up to "
        f"{longest} tokens (demo.lengths). raise it, or set data.on_long_sample to drop."
    )
    assert grid == (
        f": latency.lengths = [64, 128, 256, 512, 1024, 2048, 4096]: {count} of the demo's 320 "
        f"samples are longer than 4096 tokens, up to {longest} (demo.lengths). add {longest} to "
        "them, or raise latency.max_extrapolation."
    )


ALIKE = "demo: {num_samples: 160, lengths: {min_tokens: 3000, max_tokens: 3000}}\n"
BAD = {
    "data: {max_sample_tokens: 2999}\n": (
        ":2: data.max_sample_tokens = 2999: 160 of the demo's 160 samples are longer, up to 3000 "
    ),
    "data: {max_sample_tokens: 2999, on_long_sample: drop}\n": (
        ":2: data.max_sample_tokens = 2999: all of the demo's 160 samples are dropped, they have "
        "3000 tokens and more (demo.lengths). raise it."
    ),
    "latency: {lengths: [64, 128, 512, 2999]}\n": (
        ":2: latency.lengths = [64, 128, 512, 2999]: 160 of the demo's 160 samples are longer "
        "than 2999 tokens, up to 3000 "
    ),
    "latency:\n  max_extrapolation: 1.4\n  lengths: [64, 128, 512, 2142]\n": (
        ":4: latency.lengths = [64, 128, 512, 2142]: 160 of the demo's 160 samples are longer "
        "than 2998 tokens, "
    ),
    "data: {max_sample_tokens: 2500, on_long_sample: truncate}\n"
    "latency: {lengths: [64, 128, 512, 2499]}\n": (
        ":3: latency.lengths = [64, 128, 512, 2499]: 160 of the demo's 160 samples are longer "
        "than 2499 tokens, up to 2500 "
    ),
}
FINE = (
    "data: {max_sample_tokens: 3000}\nlatency: {lengths: [64, 128, 512, 3000]}\n",
    "data: {max_sample_tokens: 3000, on_long_sample: drop}\n",
    "latency: {lengths: [64, 128, 512, 2000], max_extrapolation: 1.5}\n",
    "topology: {max_tokens: 1024}\n",  # a longer one travels alone
    "data: {max_sample_tokens: 2048, on_long_sample: truncate}\n"
    "latency: {lengths: [64, 128, 512, 2048]}\n",
    # What is cut may lose its answers and be skipped.
    "data: {max_sample_tokens: 2500, on_long_sample: truncate, on_bad_line: skip}\n"
    "latency: {lengths: [64, 128, 512, 2499]}\n",
    "latency: {table: config/latency/h100-qwen2.5-0.5b.parquet, lengths: [512]}\n",
)


@pytest.mark.parametrize("text", BAD)
def test_what_is_too_short_for_the_longest_sample_is_said(tmp_path: Path, text: str) -> None:
    (line,) = lines_of(tmp_path, ALIKE + text)
    assert line.startswith(BAD[text])
    assert line.endswith(".")


@pytest.mark.parametrize("text", FINE)
def test_a_limit_that_is_just_kept_is_let_be(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(repository)  # paths start there
    assert lines_of(tmp_path, ALIKE + text) == []


def test_one_sample_is(tmp_path: Path) -> None:
    demo = DemoConfig(lengths=LengthDistribution(max_tokens=10**6))
    last, longest = np.sort(draw_samples(demo, seed=0)[0])[-2:].tolist()
    (line,) = lines_of(
        tmp_path,
        "demo: {lengths: {max_tokens: 1000000}}\n"
        f"latency: {{lengths: [64, 512, 4096, {longest}]}}\ndata: {{max_sample_tokens: {last}}}\n",
    )
    assert f": 1 of the demo's 1600 samples is longer, up to {longest} tokens " in line


def test_steps_are_counted_without_what_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "lengths.csv").write_text("50\n5000\n")
    lengths = f"{{max_tokens: 5000, csv: {tmp_path / 'lengths.csv'}}}"
    text = f"demo: {{num_samples: 60, lengths: {lengths}}}\ndata: {{on_long_sample: drop}}\n"
    (line,) = lines_of(tmp_path, text)
    assert line.startswith(": train.warmup_steps_unmeasured = 3: the run has ")
    longer = text.replace("drop", "drop, max_sample_tokens: 5000")
    assert lines_of(tmp_path, f"{longer}latency: {{lengths: [64, 512, 4096, 5000]}}\n") == []


def test_another_tokenizer_gives_other_lengths(tmp_path: Path) -> None:
    text = f"{ALIKE}data: {{max_sample_tokens: 2048, tokenizer: {tmp_path}}}\n"
    assert lines_of(tmp_path, text) == []


def test_own_data_are_not_the_demo_s(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text("{}\n")
    data = f"data: {{files: [{own}], tokenizer: {tmp_path}, max_sample_tokens: 2048}}\n"
    assert lines_of(tmp_path, f"{ALIKE}{data}evaluate: {{tasks: []}}\n") == []


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, ":1: demo.lengths.csv = {csv}: no such file. paths start at the checkout, "),
        (b"n\n5\nsix\n", ":1: {csv}:3: column 1 = ['six']: not a number. correct the row."),
        (b"a,b\nx,y\n", ":1: demo.lengths.csv = {csv}: no numeric column. give one length "),
        (b"n\n5\n\xff\n", ":1: demo.lengths.csv = {csv}: 'utf-8' codec can't decode byte 0xff "),
    ],
)
@pytest.mark.parametrize("on_long_sample", ["error", "drop"])
def test_a_csv_without_lengths_is_said_once(
    tmp_path: Path, content: bytes | None, line: str, on_long_sample: str
) -> None:
    csv = tmp_path / "lengths.csv"
    if content is not None:
        csv.write_bytes(content)
    text = f"demo: {{lengths: {{csv: {csv}}}}}\ndata: {{on_long_sample: {on_long_sample}}}\n"
    (said,) = lines_of(tmp_path, text)
    assert said.startswith(line.format(csv=csv))
