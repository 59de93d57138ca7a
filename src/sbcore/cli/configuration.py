"""Commands about the configuration: check it, show it whole, freeze it, export its schema."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check, show and export the configuration.", no_args_is_help=True)

_File = Annotated[Path, typer.Argument(help="A configuration, such as config/demo.yaml.")]


@app.command()
def check(file: _File) -> None:
    """Say whether a configuration is right; all its mistakes at once, exit code 2."""
    from sbcore.beforehand.check import check_beforehand
    from sbcore.config.load import load_config

    config = load_config(file)
    check_beforehand(config, [file])
    sys.stdout.write(f"{file}: ok, variants: {', '.join(config.variants)}\n")


@app.command()
def show(file: _File) -> None:
    """Print a configuration with every default filled in."""
    import yaml

    from sbcore.config.load import load_config

    values = load_config(file).model_dump(mode="json")
    sys.stdout.write(yaml.safe_dump(values, sort_keys=False))


@app.command()
def where(file: _File) -> None:
    """Say where a run's results lie."""
    from sbcore.artifacts import read_json
    from sbcore.config.load import load_config

    folder = Path("results") / load_config(file).run
    page, closed = folder / "report" / "index.html", folder / "closed.json"
    if not page.exists():
        sys.stdout.write(f"{folder}: no report yet. make run CONFIG={file}\n")
        return
    sys.stdout.write(f"Report: {page.resolve().as_uri()}\n")
    compare = read_json(closed)["compare_page"] if closed.exists() else None
    if compare:
        sys.stdout.write(f"In MLflow (make ui), the variants side by side: {compare}\n")


@app.command()
def export(
    *,
    check_only: Annotated[
        bool, typer.Option("--check", help="Only say whether the files are in step.")
    ] = False,
) -> None:
    """Write default.yaml, schema.json and the reference page from the schema."""
    from sbcore.config.export import check_exports, write_exports

    root = Path.cwd()
    if check_only:
        check_exports(root)
        return
    for path in write_exports(root):
        sys.stdout.write(f"{path.relative_to(root)}\n")


def freeze(
    file: _File,
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder for the stages' parts.")],
) -> None:
    """Write each stage's part of a configuration to a file of its own."""
    from sbcore.config.load import load_config
    from sbcore.workflow.freeze import freeze_stages

    for path in freeze_stages(load_config(file), out):
        sys.stdout.write(f"{path}\n")
