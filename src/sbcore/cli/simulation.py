"""The command that compares variants without a GPU."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def simulate(
    *,
    lengths: Annotated[Path, typer.Option(help="A csv, or index.parquet of prepared data.")],
    latency: Annotated[str, typer.Option(help="Folder of a latency profile, or: analytic.")],
    topology: Annotated[str, typer.Option(help="Ranks, as dp=8.")],
    global_batch: Annotated[int, typer.Option(min=2, help="Sequences of a step.")],
    barrier: Annotated[str, typer.Option(help="step or micro.")],
    variants: Annotated[str, typer.Option(help="Names with commas, as lbb,sab,sab_dst.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Most steps to replay.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most packed tokens in a micro-batch.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="The fixed budget, blocks.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of order and law.")] = None,
    column: Annotated[str | None, typer.Option(help="The csv's column of lengths.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Picture to write: speedup by ranks and global batch.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print json.")] = False,
) -> None:
    """Compare variants on a file of lengths without a GPU; simulated, nothing is measured."""
    from sbcore.config.simulation import SimulationConfig
    from sbcore.simulate import figure as picture
    from sbcore.simulate import show, words
    from sbcore.simulate.lengths import read_lengths
    from sbcore.simulate.run import simulate as run
    from sbcore.simulate.setting import Setting, load_latency

    num_ranks, names = words.parse_topology(topology), words.parse_variants(variants)
    barrier_kind = words.parse_barrier(barrier)
    given = {"num_steps": steps, "max_tokens": max_tokens, "top_k": top_k, "seed": seed}
    config = SimulationConfig.model_validate({k: v for k, v in given.items() if v is not None})
    model, block_size, name = load_latency(latency, block_size=config.block_size)
    found = read_lengths(lengths, column=column)
    setting = Setting(found, model, name, block_size, num_ranks, global_batch, barrier_kind, config)
    results = run(setting, names)
    if figure is not None:
        picture.draw_figure(figure, setting, names)
    if as_json:
        sys.stdout.write(show.to_json(results) + "\n")
    else:
        show.print_table(setting, results)


COMMANDS = (simulate,)
