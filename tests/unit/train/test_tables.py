import json

from sbcore.train.tables import MetricsFile, Table


def test_a_cut_off_line_and_later_steps_are_dropped_on_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s}) + "\n" for s in range(4)) + '{"step": 4, "lo')
    metrics = MetricsFile(path, first_step=3)
    metrics.add({"step": 3, "loss": 1.0})
    assert [row["step"] for row in metrics.rows()] == [0, 1, 2, 3]
    assert metrics.rows()[-1]["loss"] == 1.0


def test_a_new_run_starts_an_empty_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n')
    assert MetricsFile(path, first_step=0).rows() == []


def test_a_table_goes_on_where_it_was_saved(tmp_path):
    first, second = Table(), Table()
    first.add({"step": [0, 0]})
    first.write(tmp_path / "part.parquet")
    second.load(tmp_path / "part.parquet")
    second.add({"step": [1]})
    second.write(tmp_path / "all.parquet")
    third = Table()
    third.load(tmp_path / "all.parquet")
    third.add({"step": [2]})
    third.write(tmp_path / "all.parquet")
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "all.parquet")["step"].to_pylist() == [0, 0, 1, 2]
