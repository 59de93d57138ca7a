"""The table of the quality evidence: cells, seeds, and differences to the baseline."""

import csv
import importlib
import importlib.util
import json
import sys

import numpy as np
import pytest


@pytest.fixture
def quality(repository, monkeypatch):
    """The script, which lies beside the results it writes."""
    folder = repository / "docs" / "results"
    monkeypatch.syspath_prepend(folder)
    spec = importlib.util.spec_from_file_location("quality", folder / "quality.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "quality", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(tmp_path, quality):
    """Two seeds; one task of two lengths; sab_dst loses ten points at the longer one."""
    for seed in (0, 1):
        for name in quality.VARIANTS:
            folder = tmp_path / f"seed{seed}" / name
            folder.mkdir(parents=True)
            loss = 10.0 if name == "sab_dst" else 0.0
            scores = [100.0 - seed, 50.0, 90.0 - loss, 80.0 - loss]
            result = {"example_scores": {"recall": scores}, "chance": {"recall": 12.5}}
            (folder / "result.json").write_text(json.dumps(result))
            steps = [{"loss": 2.0 - seed, "coverage_delta": -loss}] * 2
            metrics = {"seed": seed, "steps": steps, "seconds": {"train": 9.04}}
            (folder / "metrics.json").write_text(json.dumps(metrics))
            rows = [json.dumps({"length": length}) for length in (1024, 1024, 8192, 8192)]
            (folder / "recall.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_rows(quality, results):
    quality.write_table(results, results / "table.csv")
    with (results / "table.csv").open() as file:
        rows = {(r["variant"], r["task"], r["length"]): r for r in csv.DictReader(file)}
    assert len(rows) == 4 * (2 + 1) * 3  # two lengths and both; one task, its group and all
    short = rows["sab_dst", "recall", "1024"]
    assert (short["score"], short["score_min"], short["score_max"]) == ("74.75", "74.5", "75.0")
    assert (short["difference"], short["distinguishable"]) == ("0.0", "False")
    long = rows["sab_dst", "recall", "8192"]
    assert (long["difference"], long["low"], long["high"]) == ("-10.0", "-10.0", "-10.0")
    assert (long["distinguishable"], long["num_examples"], long["num_seeds"]) == ("True", "2", "2")
    assert (long["difference_min"], long["difference_max"]) == ("-10.0", "-10.0")
    assert rows["sab_dst", "all", "all"]["difference"] == "-5.0"
    assert rows["sab_waterfill", "all", "all"]["difference"] == "0.0"
    assert rows["sab_waterfill", "all", "all"]["p_value"] == "1.0"
    assert rows["sab_dst", "all", "8192"]["difference"] == "-10.0"
    with (results / "table-runs.csv").open() as file:
        runs = {(r["variant"], r["seed"]): r for r in csv.DictReader(file)}
    assert len(runs) == 2 * 4
    run = runs["sab_dst", "1"]
    assert (run["loss_mean"], run["coverage_delta_min"], run["train_s"]) == ("1.0", "-10.0", "9.0")


def test_seeds_that_disagree(quality):
    import quality_rows

    cell = ("recall", "1024")
    ours = {cell: {0: [10.0, 10.0], 1: [0.0, 0.0]}}
    theirs = {cell: {0: [0.0, 0.0], 1: [10.0, 10.0]}}
    row = quality_rows.compared(ours, theirs, [cell])
    assert (row["difference"], row["difference_min"], row["difference_max"]) == (0.0, -10.0, 10.0)
    assert (row["low"], row["high"], row["num_examples"]) == (0.0, 0.0, 2)


def test_chance_of_signs(quality):
    from quality_rows import sign_flip_p

    assert sign_flip_p([np.zeros(3)]) == 1.0
    assert sign_flip_p([np.full(2, 5.0)]) == pytest.approx(0.5, abs=0.02)  # two of four ways
    assert sign_flip_p([np.full(2, 5.0), np.full(3, 5.0)]) == pytest.approx(1 / 16, abs=0.01)
    assert sign_flip_p([np.full(40, -5.0)]) == pytest.approx(1e-4, abs=1e-5)  # none of the draws


def test_holm(quality):
    from quality_summary import holm

    keys = [("30M", name, "sab_dst") for name in "abc"]
    corrected = holm(dict(zip(keys, (0.04, 0.01, 0.03), strict=True)))
    assert [corrected[key] for key in keys] == pytest.approx([0.06, 0.03, 0.06])


def test_picture(quality, results, monkeypatch):
    quality.write_table(results, results / "quality-30m.csv")
    plot = importlib.import_module("quality_plot")
    monkeypatch.setattr(plot, "HERE", results)
    monkeypatch.setattr(plot, "_PANELS", (1, 2))
    plot.main()
    assert (results / "quality-30m.png").stat().st_size > 10_000


def test_seeds_that_only_one_has_are_left_out(quality, results):
    (results / "seed1" / "baseline" / "result.json").unlink()
    rows = list(
        quality.table_rows(
            "sab_dst",
            quality.read_scores(results, "sab_dst"),
            quality.read_scores(results, "baseline"),
            {},
        )
    )
    assert {row["num_seeds"] for row in rows} == {1}


def test_nothing_there(quality, tmp_path):
    with pytest.raises(SystemExit, match=r"no seed.*run quality_train"):
        quality.read_scores(tmp_path, "dense")


@pytest.mark.parametrize("name", ["Recipe", "small"])
def test_recipes_are_configurations(quality, name):
    import quality_recipe

    config = getattr(quality_recipe, name)().config(seed=3)
    assert config.seed == 3
    assert list(config.variants) == list(quality.VARIANTS)
    assert config.evaluate.max_examples >= config.demo.num_eval_samples
