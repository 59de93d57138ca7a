"""What docs/explanation/tuning.md says is what the policies do."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _scripts_beside_the_page(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "docs" / "explanation")


def test_every_table_of_the_page_is_what_its_script_makes():
    import tuning_page

    page = tuning_page.PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- generated: {name} -->" in page for name in tuning_page.BLOCKS)
    assert tuning_page.filled(page) == page, (
        "tuning.md is out of step. run: PYTHONPATH=src python docs/explanation/tuning_page.py"
    )


def test_raises_done_by_hand_end_where_the_policy_ends():
    import tuning_example as example

    by_hand = [line.split("|")[1].strip() for line in example.raises().splitlines()[3:]]
    top_k = example.cheapest()
    for raised in by_hand:
        name, _, _, to = raised.replace(":", "").split()
        top_k[example.NAMES.index(name)] = int(to)
    policy = example.make_policy(example.TUNERS["waterfill"])
    assert policy.decide(example.observation())[0].tolist() == top_k.tolist()


def test_in_simulated_steps_waterfill_loses_no_coverage_and_beats_k0():
    import tuning_simulation as simulation

    for setting in simulation.SETTINGS[1:4]:
        rows = {name: np.array(steps) for name, steps in simulation.simulate(setting).items()}
        fixed, waterfill = rows["fixed"], rows["waterfill"]
        assert len(fixed) == simulation.NUM_STEPS
        assert (waterfill[:, 0] <= fixed[:, 0] * (1 + 1e-9)).all()
        assert waterfill[:, 0].mean() < 0.97 * fixed[:, 0].mean()
        assert (waterfill[:, 2] >= -1e-9).all()
        assert waterfill[:, 3].mean() > -0.002


def test_on_real_lengths_tuning_keeps_its_promises(real_data):
    import tuning_ablation as ablation

    from sbcore.config.simulation import SimulationConfig
    from sbcore.simulate.lengths import read_lengths
    from sbcore.simulate.setting import ANALYTIC, Setting, load_latency
    from sbcore.types import Barrier

    latency, block_size, source = load_latency(ANALYTIC, block_size=256)
    lengths = read_lengths(real_data / "lengths" / ablation.DATA["mooncake"], column=None)
    lengths = lengths[lengths <= ablation.LONGEST]
    config = SimulationConfig(num_steps=40)
    setting = Setting(lengths, latency, source, block_size, 4, 16, Barrier.STEP, config)
    rows = {
        row[4]: dict(zip(ablation.COLUMNS, row, strict=True))
        for row in ablation.rows_of(setting, "mooncake")
    }
    waterfill, anchor = rows["sab_waterfill"], rows["sab_dst"]
    assert float(waterfill["speedup"]) > float(anchor["speedup"]) > float(rows["sab"]["speedup"])
    assert float(waterfill["coverage_delta"]) >= -0.1
    assert float(waterfill["worst_layer"]) >= -10.0
    assert float(anchor["anchor_miss_pct"]) <= 5.0
