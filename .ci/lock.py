"""Resolves the ranges of pyproject.toml in a clean environment and rewrites the pins.

Writes requirements.lock, requirements-dev.lock and the pip section of environment.yml; what stands
in them before the first pin stays. Standard library only, since it runs before anything is there.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
# torch's own metadata pins its CUDA packages; a CPU machine must not install them.
_LEFT_OUT = re.compile(r"^(pip|wheel|sparsebalance|nvidia[-_].*|cuda[-_].*)$", re.IGNORECASE)
_MARKERS = {"triton": '; platform_system == "Linux"'}


def main() -> None:
    """Makes the environment, freezes it twice and rewrites the three files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder) / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        runtime = _install(pip, project["project"]["dependencies"])
        both = _install(pip, [*_without_markers(runtime), *project["dependency-groups"]["dev"]])
    development = [pin for pin in both if pin not in runtime]
    _rewrite(ROOT / "requirements.lock", runtime, indent="")
    _rewrite(ROOT / "requirements-dev.lock", development, indent="")
    _rewrite(ROOT / "environment.yml", [*runtime, *development], indent="      - ")


def pins_of(frozen: str) -> list[str]:
    """Returns the lines of `pip freeze` as pins: no build suffix, markers where they are needed."""
    pins = []
    for line in frozen.splitlines():
        name, equals, version = line.partition("==")
        if equals and not _LEFT_OUT.match(name):
            pins.append(f"{name}=={version.split('+')[0]}{_MARKERS.get(name, '')}")
    return pins


def head_of(text: str) -> str:
    """Returns a file's lines before its first pin."""
    lines = text.splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if re.match(r"^[\s'-]*[\w.-]+==", line))
    return "".join(lines[:first])


def _install(pip: list[str], packages: list[str]) -> list[str]:
    subprocess.run([*pip, "install", *packages], check=True)
    done = subprocess.run([*pip, "freeze", "--all"], check=True, capture_output=True, text=True)
    if "+cpu" in done.stdout:
        sys.stderr.write("torch is a CPU build, which names no triton: compare that pin by hand.\n")
    return pins_of(done.stdout)


def _without_markers(pins: list[str]) -> list[str]:
    return [pin.split(";")[0] for pin in pins]


def _rewrite(path: Path, pins: list[str], *, indent: str) -> None:
    quoted = [f"'{pin}'" if indent and ";" in pin else pin for pin in pins]
    body = "".join(f"{indent}{pin}\n" for pin in quoted)
    path.write_text(head_of(path.read_text(encoding="utf-8")) + body, encoding="utf-8")


if __name__ == "__main__":
    main()
