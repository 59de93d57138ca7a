"""The evidence with SmolLM2: recipes, unpacked weights, tables."""

import csv
import importlib
import json
import sys

import pytest
import torch

SCRIPTS = (
    *("quality_recipe", "quality_rows", "quality_runs", "quality_summary", "quality_tables"),
    *("smollm2_recipe", "smollm2_data", "smollm2"),
)


@pytest.fixture
def scripts(repository, monkeypatch):
    """The scripts beside the results that they write, by name."""
    monkeypatch.syspath_prepend(repository / "docs" / "results")
    for name in SCRIPTS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield {name: importlib.import_module(name) for name in SCRIPTS}
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture
def results(tmp_path, scripts):
    """Two seeds and the start; sab_dst loses ten points on hotpotqa, nothing elsewhere."""
    names = (*scripts["smollm2_recipe"].BEFORE, *scripts["quality_recipe"].VARIANTS)
    for seed, name in [(0, name) for name in names] + [(1, name) for name in names[2:]]:
        loss = 10.0 if name == "sab_dst" else 0.0
        sets = {
            "longbench": {"hotpotqa": [50.0 - loss, 30.0 - loss], "lsht": [5.0], "lcc": [20.0]},
            "made": {"niah_2048": [100.0, 0.0], "ruler_vt_4096": [60.0]},
        }
        for tasks, scores in sets.items():
            folder = tmp_path / f"seed{seed}" / name / tasks
            folder.mkdir(parents=True)
            (folder / "result.json").write_text(json.dumps({"example_scores": scores}))
        seconds = {"train": 9.04, "longbench": 8.0, "made": 7.0}
        step = {"loss": 2.0, "coverage_delta": None}
        metrics = {"seed": seed, "steps": [step] * 3, "seconds": seconds}
        (tmp_path / f"seed{seed}" / name / "metrics.json").write_text(json.dumps(metrics))
    return tmp_path


def test_tables(scripts, results):
    scripts["smollm2"].write_tables(results, results / "table.csv")
    with (results / "table.csv").open() as file:
        rows = {(r["variant"], r["family"], r["task"]): r for r in csv.DictReader(file)}
    lost = rows["sab_dst", "multi_doc_qa", "all"]
    assert (lost["difference"], lost["distinguishable"]) == ("-10.0", "True")
    assert (lost["num_seeds"], lost["num_examples"]) == ("2", "2")
    assert rows["sab_dst", "longbench", "all"]["difference"] == "-5.0"  # of hotpotqa and lcc
    assert rows["sab_dst", "chinese", "all"]["difference"] == "0.0"
    assert rows["sab_dst", "made", "all"]["score"] == "55.0"
    assert rows["before_dense", "niah", "niah_2048"]["num_seeds"] == "1"
    with (results / "table-runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 6 + 4
    assert {(r["num_steps"], r["loss_final"], r["train_s"]) for r in runs} == {("3", "2.0", "9.0")}


def test_nothing_there(scripts, tmp_path):
    with pytest.raises(SystemExit, match=r"no seed.*run smollm2_train"):
        scripts["smollm2"].read_scores(tmp_path, "dense")


@pytest.mark.parametrize("name", ["Recipe", "small"])
def test_recipes_are_configurations(scripts, tmp_path, name):
    recipe = getattr(scripts["smollm2_recipe"], name)()
    config = recipe.config(seed=3)
    assert config.seed == 3
    assert list(config.variants) == list(scripts["quality_recipe"].VARIANTS)
    limit = config.evaluate.max_prompt_tokens
    assert max(config.evaluate.niah.lengths) <= limit
    assert max(config.evaluate.ruler.lengths) <= limit
    assert len(recipe.made_lengths) == len(recipe.made_counts)
    recipe.write(tmp_path)
    assert type(recipe).read(tmp_path) == recipe
    assert recipe.latency().num_layers == recipe.num_layers


def test_questions_are_drawn_once_each(scripts):
    meetings = [{"id": i, "queries": [{"query": f"{i} {j}"} for j in range(3)]} for i in range(4)]
    drawn = scripts["smollm2_data"]._drawn(meetings, 7)
    assert len({query["query"] for _, query in drawn}) == 7
    assert all(query in meeting["queries"] for meeting, query in drawn)


def test_packed_heads_rotate_pairs(repository, monkeypatch):
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    monkeypatch.syspath_prepend(repository / "docs" / "results")
    weights = importlib.import_module("smollm2_weights")
    packed = torch.arange(8.0)[:, None]  # two heads of four: pairs (0, 1), (2, 3)
    assert weights.in_halves(packed, 4)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert weights.library_name("blk.3.attn_q.weight") == "model.layers.3.self_attn.q_proj.weight"
    assert weights.library_name("output_norm.weight") == "model.norm.weight"


def test_summary(scripts, results):
    scripts["smollm2"].write_tables(results, results / "smollm2.csv")
    with (results / "smollm2.csv").open() as file:
        rows = list(csv.DictReader(file))
    small = [
        {"task": "recall", "length": "all", "variant": name, "num_examples": "240"}
        | {"score": "60", "difference": "-2", "low": "-3", "high": "-1"}
        | {"distinguishable": str(name != "baseline"), "p_value": "0.0002"}
        for name in scripts["quality_recipe"].VARIANTS
    ]
    head, *lines = scripts["quality_summary"].summary_lines(rows, small)
    families = ["multi_doc_qa", "chinese", "code", "niah", "ruler"]
    assert [line[1] for line in lines] == [*families, "recall"]
    assert {len(line) for line in lines} == {len(head)}
    assert lines[0][4].startswith("**30.0: -10.0 (-10.0 to -10.0)**, p 0.5")
    assert lines[1][4] == "5.0: +0.0 (+0.0 to +0.0)"
    assert lines[-1][5] == "**60.0: -2.0 (-3.0 to -1.0)**, p 0.0002, Holm 0.002"


def test_page(scripts, results, monkeypatch):
    tables = scripts["quality_tables"]
    monkeypatch.setattr(tables, "HERE", results)
    monkeypatch.setattr(tables, "PAGE", results / "quality.md")
    scripts["smollm2"].write_tables(results, results / "smollm2.csv")
    places = [
        f"<!-- generated: {name} -->\nold\n<!-- end -->"
        for name in ("smollm2 scores", "smollm2 runs")
    ]
    (results / "quality.md").write_text("A\n" + "\nB\n".join(places) + "\nC\n")
    tables.main()
    page = (results / "quality.md").read_text()
    assert "old" not in page
    assert page.index("A\n") < page.index("| ruler_vt_4096 | 1 | 60.0") < page.index("\nB\n")
    assert "| **30.0 (-10.0, -10.0 to -10.0)** |" in page
    assert "| sab_dst | 1 | 2.0 | 2.0 | 2.0 |  | 8.0 | 7.0 |" in page
    tables.main()
    assert (results / "quality.md").read_text() == page
