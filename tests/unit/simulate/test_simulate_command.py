"""`sb simulate`: the shape of its json, what its table says, one line for each mistake."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

import sbcore.cli
from sbcore.config.simulation import SimulationConfig
from sbcore.latency.table import HEADER, TABLE, profile_files
from sbcore.plan import bench

KEYS = ["variant", "speedup", "imbalance", "gap", "coverage_delta", "bubble"]


@pytest.fixture
def lengths(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0).lognormal(8.8, 1.0, size=100)
    path = tmp_path / "lengths.csv"
    rows = (f"{i},{length}\n" for i, length in enumerate(np.clip(drawn, 64, 65536).astype(int)))
    path.write_text("sample_id,num_tokens\n" + "".join(rows))
    return path


def call(monkeypatch: pytest.MonkeyPatch, **changes: str) -> int:
    options = {
        "latency": "analytic",
        "topology": "dp=4",
        "global-batch": "16",
        "barrier": "step",
        "variants": "baseline,sab,sab_dst",
        "steps": "4",
    } | {key.replace("_", "-"): value for key, value in changes.items()}
    words = [word for key, value in options.items() for word in (f"--{key}", value) if word]
    monkeypatch.setattr(sys, "argv", ["sb", "simulate", *words])
    with pytest.raises(SystemExit) as caught:
        sbcore.cli.main()
    return int(caught.value.code or 0)


def test_json_has_these_keys_and_is_repeatable(
    lengths: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for _ in range(2):
        assert call(monkeypatch, lengths=str(lengths), json="") == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    found = json.loads(outputs[0])
    assert list(found) == ["variants"]
    assert [entry["variant"] for entry in found["variants"]] == ["baseline", "sab", "sab_dst"]
    for entry in found["variants"]:
        assert list(entry) == KEYS
        assert all(isinstance(entry[key], float) for key in KEYS[1:])
    assert found["variants"][0]["speedup"] == 1.0


def test_speedup_is_over_the_baseline_also_where_that_is_not_asked_for(
    lengths: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for names in ("sab", "baseline,sab"):
        assert call(monkeypatch, lengths=str(lengths), variants=names, json="") == 0
        found.append(json.loads(capsys.readouterr().out)["variants"][-1])
    assert found[0] == found[1]


def test_the_table_says_that_it_is_simulated_and_by_which_law(
    lengths: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, lengths=str(lengths)) == 0
    text = capsys.readouterr().out
    assert "simulated, not measured: 4 steps of 16 sequences on 4 ranks" in text
    assert "analytic, uncalibrated" in text
    assert "j^-alpha" in text


def test_pipelines_have_bubbles(
    lengths: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bubbles = []
    for topology, barrier in (("dp=2", "step"), ("dp=2,pp=4", "pipeline"), ("dp=2,pp=4", "micro")):
        asked = {"topology": topology, "barrier": barrier, "variants": "sab", "json": ""}
        assert call(monkeypatch, lengths=str(lengths), **asked) == 0
        bubbles.append(json.loads(capsys.readouterr().out)["variants"][0]["bubble"])
    assert bubbles[0] < 0.1 < bubbles[1]
    assert bubbles[0] < bubbles[2]
    assert call(monkeypatch, lengths=str(lengths), topology="dp=2,pp=4", barrier="pipeline") == 0
    assert "on 2 ranks of 4 pipeline stages (1F1B), barrier pipeline" in capsys.readouterr().out


def test_slow_ranks_and_look_ahead_are_said(
    lengths: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, lengths=str(lengths), slow_ranks="3=1.5,0=1.01", look_ahead="2") == 0
    text = capsys.readouterr().out
    assert "times of rank 3 x 1.5; plans know it" in text
    assert "2 global batches regrouped by length within 25 % of their tokens" in text
    assert "a change of sampling" in text


def test_a_picture_is_written(
    lengths: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    picture = tmp_path / "speedup.png"
    assert call(monkeypatch, lengths=str(lengths), variants="sab", figure=str(picture)) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("file", ["profile", f"profile/{TABLE}", "h100.parquet"])
def test_a_measured_table_is_used_and_refuses_what_it_does_not_reach(
    file: str,
    lengths: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    bench._write_profile(tmp_path / "profile")
    for one in profile_files(tmp_path / "profile"):  # a table of another name, beside its json
        shutil.copy(one, tmp_path / f"h100{one.suffix}")
    words = {"lengths": str(lengths), "latency": str(tmp_path / file), "top_k": "32"}
    words["max_tokens"] = "65536"
    assert call(monkeypatch, **words) == 0
    assert f"latency: {tmp_path / file}, measured on" in capsys.readouterr().out
    with lengths.open("a") as rows:
        rows.write("100,65537\n")
    assert call(monkeypatch, **words) == 2
    assert "does not reach 65537 tokens at top_k 32 (1 of 101" in capsys.readouterr().err
    words["max_extrapolation"] = "1.5"
    assert call(monkeypatch, **words) == 0
    assert "extrapolated: 1 of 101 sequences" in " ".join(capsys.readouterr().out.split())
    assert call(monkeypatch, **words, json="") == 0
    assert "extrapolated: 1 of 101 sequences" in capsys.readouterr().err


def test_a_profile_s_own_setting_is_taken_and_none_is_guessed(
    lengths: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "profile"
    bench._write_profile(folder)
    words = {"lengths": str(lengths), "latency": str(folder)}
    assert call(monkeypatch, **words, max_tokens="4096") == 2
    error = capsys.readouterr().err
    assert error == f"{folder / HEADER}: top_k: not stated. give --top-k N.\n"
    assert call(monkeypatch, **words, top_k="8") == 2
    assert "max_tokens: not stated. give --max-tokens N.\n" in capsys.readouterr().err
    head = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps(head | {"top_k": 8, "max_tokens": 4096}))
    said = "top_k {} of 256 tokens, micro-batches up to {} tokens\n"
    assert call(monkeypatch, **words) == 0
    assert said.format(8, 4096) in capsys.readouterr().out
    assert call(monkeypatch, **words, top_k="16", max_tokens="8192") == 0
    assert said.format(16, 8192) in capsys.readouterr().out


def test_the_help_tells_the_defaults() -> None:
    shown = {
        option.name: option.show_default
        for option in get_command(sbcore.cli.app).commands["simulate"].params
    }
    ours = SimulationConfig()
    formula = ("top_k", "max_tokens")
    for name, key in {"steps": "num_steps", "seed": "seed", "look_ahead": "look_ahead"}.items():
        assert shown[name] == str(getattr(ours, key))
    assert float(shown["max_extrapolation"]) == ours.max_extrapolation
    assert [shown[name] for name in formula] == [
        f"the profile's; {getattr(ours, name)} for analytic" for name in formula
    ]
    assert shown["column"]


def test_step_of_pipelines_is_pipeline_and_that_is_said(
    lengths: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for topology, other in (("dp=2,pp=4", "step"), ("dp=2", "pipeline")):
        own = "pipeline" if other == "step" else "step"
        shown = {}
        for barrier in (own, other):
            asked = {"topology": topology, "barrier": barrier, "json": ""}
            assert call(monkeypatch, lengths=str(lengths), **asked) == 0
            shown[barrier] = capsys.readouterr()
        assert shown[own].out == shown[other].out
        assert shown[own].err == ""
        assert f"is barrier {own}: the same numbers\n" in shown[other].err
        assert call(monkeypatch, lengths=str(lengths), topology=topology, barrier=other) == 0
        assert f"is barrier {own}: the same numbers\n" in capsys.readouterr().out


def test_an_index_is_read_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bench._write_index(tmp_path / "index.parquet", 40)
    assert call(monkeypatch, lengths=str(tmp_path / "index.parquet")) == 0
    assert "simulated, not measured: 2 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("lengths", "none.csv", "none.csv: not a file."),
        ("lengths", "none.parquet", "none.parquet: not a file."),
        ("column", "words", "--column = words: no such column. available: sample_id, num_tokens."),
        (
            "latency",
            "none",
            f"--latency = none: no latency profile there. give a folder with {HEADER}",
        ),
        ("topology", "dp=2,pp=0", "not a number of stages above 0. write pp=8."),
        ("topology", "pp=4", "not a topology. write dp=8 or dp=8,pp=4."),
        ("topology", "dp=2,dp=4", "not a topology"),
        ("topology", "tp=2", "not a topology"),
        ("topology", "dp=0", "not a number of ranks above 0"),
        ("topology", "dp=two", "not a number of ranks above 0"),
        ("topology", "dp=32", "--global-batch = 16: fewer sequences than the 32 ranks."),
        ("slow_ranks", "4=1.5", "4=1.5: not a rank below 4 and its time over the predicted one"),
        ("slow_ranks", "1=0", "1=0: not a rank below 4"),
        ("slow_ranks", "1", "1: not a rank below 4"),
        ("slow_ranks", "1=nan", "1=nan: not a rank below 4"),
        ("barrier", "mikro", "Did you mean 'micro'?"),
        ("variants", "sab,sba", "--variants = 'sba': unknown. Did you mean 'sab'?"),
        ("global_batch", "128", "100 sequences: fewer than the global batch of 128."),
    ],
)
def test_a_mistake_is_a_line(
    option: str,
    value: str,
    message: str,
    lengths: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, **({"lengths": str(lengths)} | {option: value})) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: columns = none: none of lengths"),
        ("a,b\n1,2\n", ":1: columns = a, b: none of lengths among them."),
        ("tokens\n", ": no rows."),
        ("tokens\n5\n0\n", ":3: tokens = 0: not a whole number"),
        ("tokens\n5\nnan\n", ":3: tokens = nan: not a whole number"),
        ("tokens\n5\ninf\n", ":3: tokens = inf: not a whole number"),
        ("tokens\n-5\n", ":2: tokens = -5: not a whole number"),
        ("tokens\n5.5\n", ":2: tokens = 5.5: not a whole number"),
        ("name,tokens\nx\n", ":2: tokens = nothing: not a whole number"),
        ("tokens\n5\n6\n", "2 sequences: fewer than the 4 ranks."),
    ],
)
def test_a_wrong_file_is_a_line(
    text: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "wrong.csv").write_text(text)
    assert call(monkeypatch, lengths=str(tmp_path / "wrong.csv")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
