"""What each stage reads of the configuration: one small file per stage.

Editing a key changes exactly the files of the stages that read it, so Snakemake reruns exactly
those and what follows them.
"""

from collections.abc import Iterator
from typing import Literal

from sbcore.config.compute import AttentionConfig, LatencyGridConfig, TopologyConfig
from sbcore.config.data import DataConfig, DemoConfig, LengthProfileConfig, SamplingConfig
from sbcore.config.method import BalancerConfig, TunerConfig
from sbcore.config.reporting import EvaluateConfig, NiahConfig, RulerConfig, TrackingConfig
from sbcore.config.schema import Config
from sbcore.config.section import Section
from sbcore.config.training import ModelConfig, ModelShape, TrainConfig
from sbcore.types import Barrier


class RunStage(Section):
    """Opens the pipeline run."""

    run: str
    tracking: TrackingConfig
    config: Config


class DemoStage(Section):
    """Makes the demo's data set, tokenizer and tasks."""

    seed: int
    demo: DemoConfig


class BaseStage(Section):
    """Trains the demo's base model."""

    seed: int
    demo: DemoConfig
    shape: ModelShape
    device: Literal["auto", "cpu", "cuda"]


class PrepareStage(Section):
    """Reads, tokenizes and masks the data set."""

    data: DataConfig


class ProfileLengthsStage(Section):
    """Describes the length distribution."""

    lengths: LengthProfileConfig


class ProfileLatencyStage(Section):
    """Measures the model's layers, and whole micro-batches as training runs them."""

    attention: AttentionConfig
    model: ModelConfig
    latency: LatencyGridConfig
    device: Literal["auto", "cpu", "cuda"]
    num_ranks: int
    barrier: Barrier
    max_tokens: int
    threads: int
    activation_checkpointing: Literal["none", "full", "selective"]
    recompute_above_tokens: int
    compile_layers: bool
    layers_per_shard: int
    keep_gathered: bool

    def recomputes(self, num_tokens: int) -> bool:
        """Returns whether a micro-batch of so many tokens is recomputed."""
        return self.activation_checkpointing != "none" and num_tokens > self.recompute_above_tokens


class PlanStage(Section):
    """Lays out every global batch of a variant."""

    variant: str
    seed: int
    sampling: SamplingConfig
    block_size: int
    top_k: int
    attention: Literal["sparse", "dense"]
    balancer: BalancerConfig
    num_ranks: int
    num_stages: int
    speed_factors: list[float]
    barrier: Barrier
    max_tokens: int
    max_memory_gib: float | None
    max_sequences: int
    max_extrapolation: float


class TrainStage(Section):
    """Trains a variant by its plan."""

    variant: str
    seed: int
    model: ModelConfig
    attention: AttentionConfig
    kind: Literal["sparse", "dense"]
    balancer: BalancerConfig
    max_sequences: int
    tuner: TunerConfig
    topology: TopologyConfig
    train: TrainConfig


class MakeTasksStage(Section):
    """Makes evaluation tasks, and takes over those of benchmarks with another form."""

    seed: int
    niah: NiahConfig | None
    ruler: RulerConfig | None
    ruler_files: dict[int, str]
    longbench_v2: str | None


class EvaluateStage(Section):
    """Scores a variant's model."""

    variant: str
    evaluate: EvaluateConfig
    attention: AttentionConfig
    kind: Literal["sparse", "dense"]
    device: Literal["auto", "cpu", "cuda"]


class ReportStage(Section):
    """Compares the variants."""

    run: str
    baseline: str
    variants: list[str]
    barrier: Barrier
    evaluated: bool


def shared_stages(config: Config) -> Iterator[tuple[str, Section]]:
    """Yields the stages that run once, by file name without its ending."""
    yield "run", RunStage(run=config.run, tracking=config.tracking, config=config)
    yield "demo", DemoStage(seed=config.seed, demo=config.demo)
    yield (
        "base",
        BaseStage(
            seed=config.seed,
            demo=config.demo,
            shape=config.model.shape,
            device=config.topology.device,
        ),
    )
    yield "prepare", PrepareStage(data=config.data)
    yield "profile_lengths", ProfileLengthsStage(lengths=config.lengths)
    yield (
        "profile_latency",
        ProfileLatencyStage(
            attention=config.attention,
            model=_as_measured(config.model),
            latency=config.latency,
            device=config.topology.device,
            num_ranks=config.topology.num_ranks,
            barrier=config.topology.barrier,
            max_tokens=config.topology.max_tokens,
            threads=config.train.threads_per_rank,
            activation_checkpointing=config.train.activation_checkpointing,
            recompute_above_tokens=config.train.recompute_above_tokens,
            compile_layers=config.train.compile_layers,
            layers_per_shard=config.train.layers_per_shard,
            keep_gathered=config.train.keep_gathered,
        ),
    )
    yield "tasks", make_tasks_stage(config)
    yield (
        "report",
        ReportStage(
            run=config.run,
            baseline=config.baseline,
            variants=list(config.variants),
            barrier=config.topology.barrier,
            evaluated=bool(config.evaluate.tasks),
        ),
    )


def _as_measured(model: ModelConfig) -> ModelConfig:
    """Returns the model without how it is written in the end, which takes no step's time."""
    lora = model.lora and model.lora.model_copy(update={"save": "merged"})
    return model.model_copy(update={"lora": lora, "save_dtype": None})


def plan_stage(config: Config, name: str) -> PlanStage:
    """Returns what planning the variant reads."""
    variant, topology = config.variants[name], config.topology
    return PlanStage(
        variant=name,
        seed=config.seed,
        sampling=config.sampling,
        block_size=config.attention.block_size,
        top_k=config.attention.top_k,
        attention=variant.attention,
        balancer=variant.balancer,
        num_ranks=topology.num_ranks,
        num_stages=topology.num_stages,
        speed_factors=topology.speed_factors,
        barrier=topology.barrier,
        max_tokens=topology.max_tokens,
        max_memory_gib=topology.max_memory_gib,
        max_sequences=variant.max_sequences,
        max_extrapolation=config.latency.max_extrapolation,
    )


def train_stage(config: Config, name: str) -> TrainStage:
    """Returns what training the variant reads."""
    variant = config.variants[name]
    return TrainStage(
        variant=name,
        seed=config.seed,
        model=config.model,
        attention=config.attention,
        kind=variant.attention,
        balancer=variant.balancer,
        max_sequences=variant.max_sequences,
        tuner=variant.tuner,
        topology=config.topology,
        train=config.train,
    )


def make_tasks_stage(config: Config) -> MakeTasksStage:
    """Returns what making evaluation tasks reads."""
    return MakeTasksStage(
        seed=config.seed,
        niah=config.evaluate.niah,
        ruler=config.evaluate.ruler,
        ruler_files=config.evaluate.ruler_files,
        longbench_v2=config.evaluate.longbench_v2,
    )


def evaluate_stage(config: Config, name: str) -> EvaluateStage:
    """Returns what evaluating the variant reads."""
    return EvaluateStage(
        variant=name,
        evaluate=config.evaluate,
        attention=config.attention,
        kind=config.variants[name].attention,
        device=config.topology.device,
    )


def all_stages(config: Config) -> Iterator[tuple[str, Section]]:
    """Yields every stage's part of the configuration: ("plan.sab", PlanStage), ..."""
    yield from shared_stages(config)
    for name in config.variants:
        yield f"plan.{name}", plan_stage(config, name)
        yield f"train.{name}", train_stage(config, name)
        yield f"evaluate.{name}", evaluate_stage(config, name)
