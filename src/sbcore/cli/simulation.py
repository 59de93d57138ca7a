"""The command that compares variants without a GPU."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def simulate(
    *,
    lengths: Annotated[Path, typer.Option(help="A csv, or index.parquet of prepared data.")],
    latency: Annotated[str, typer.Option(help="Folder of a latency profile, or: analytic.")],
    topology: Annotated[str, typer.Option(help="Ranks, as dp=8, or with stages: dp=8,pp=4.")],
    global_batch: Annotated[int, typer.Option(min=2, help="Sequences of a step.")],
    barrier: Annotated[
        str, typer.Option(help="step, micro, or pipeline: step where ranks have stages.")
    ],
    variants: Annotated[str, typer.Option(help="Names with commas, as lbb,sab,sab_dst.")],
    steps: Annotated[
        int | None, typer.Option(min=1, help="Most steps to replay.", show_default="50")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most packed tokens in a micro-batch.",
            show_default="the profile's; 65536 for analytic",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The fixed budget, blocks.",
            show_default="the profile's; 32 for analytic",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of order and law.", show_default="0")
    ] = None,
    slow_ranks: Annotated[
        str | None,
        typer.Option(
            help="Ranks slower than predicted, as 3=1.5 for half slower.", show_default="none"
        ),
    ] = None,
    look_ahead: Annotated[
        int | None,
        typer.Option(
            min=1, help="Global batches regrouped: a change of sampling.", show_default="1"
        ),
    ] = None,
    max_extrapolation: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="How far beyond the table's lengths to predict, a factor.",
            show_default="1",
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="The csv's column of lengths.", show_default="the one named like tokens or length"
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Picture to write: speedup by ranks and global batch.", show_default="none"
        ),
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
    from sbcore.simulate.stated import stated_by

    num_ranks, num_stages = words.parse_topology(topology)
    names, barrier_kind = words.parse_variants(variants), words.parse_barrier(barrier)
    speeds = words.parse_slow_ranks(slow_ranks, num_ranks)
    given: dict[str, float | None] = {
        "num_steps": steps,
        "max_tokens": max_tokens,
        "top_k": top_k,
        "seed": seed,
    }
    given |= {"look_ahead": look_ahead, "max_extrapolation": max_extrapolation}
    asked = {key: value for key, value in given.items() if value is not None}
    config = SimulationConfig.model_validate(stated_by(latency, asked) | asked)
    model, block_size, name = load_latency(latency, block_size=config.block_size)
    found = read_lengths(lengths, column=column)
    setting = Setting(
        found,
        model,
        name,
        block_size,
        num_ranks,
        global_batch,
        barrier_kind,
        config,
        num_stages,
        speeds,
    )
    results = run(setting, names)
    if figure is not None:
        picture.draw_figure(figure, setting, names)
    if as_json:
        sys.stdout.write(show.to_json(results) + "\n")
        sys.stderr.writelines(f"{line}\n" for line in show.notes(setting))
    else:
        show.print_table(setting, results)


COMMANDS = (simulate,)
