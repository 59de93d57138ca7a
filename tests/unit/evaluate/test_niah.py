"""The grid of length and depth: where the fact stands, what the haystack is, what is scored."""

import gzip
import json
from dataclasses import replace

import pytest

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.metrics import find_metric
from sbcore.evaluate.niah.haystack import open_haystack
from sbcore.evaluate.niah.heat_map import Grid, heat_map, score_niah
from sbcore.evaluate.niah.make import make_niah
from sbcore.evaluate.niah.needle import Needle, depth_grid, hide
from sbcore.evaluate.predictions import row_of
from sbcore.evaluate.prompts import fill_template
from sbcore.evaluate.task_folder import load_tasks

ACCESS_CODE = Needle(
    sentence="The access code of the north gate is {value}.",
    question="What is the access code of the north gate?",
    answer="{value}",
)
DEPTHS = [0.0, 25.0, 50.0, 75.0, 100.0]
LENGTHS = [900, 2000]


@pytest.fixture
def make(tokenizer_dir, tmp_path):
    def run(name="tasks", **changes):
        values = {
            "lengths": LENGTHS,
            "depths_percent": DEPTHS,
            "haystack": "prose",
            "needle": ACCESS_CODE,
            "num_examples": 2,
            "max_new_tokens": 32,
            "seed": 3,
        }
        make_niah(tmp_path / name, tokenizer_dir=tokenizer_dir, **(values | changes))
        return tmp_path / name

    return run


def tasks_of(folder, lengths=LENGTHS):
    return load_tasks([folder], [f"niah_{length}" for length in lengths], max_examples=99)


def test_examples_fit_and_hold_their_fact(make, tokenizer):
    for loaded, length in zip(tasks_of(make()), LENGTHS, strict=True):
        assert len(loaded.rows) == 10
        assert len({row.answers[0] for row in loaded.rows}) == 10
        for row in loaded.rows:
            prompt = fill_template(loaded.template, row, place="here")
            assert row.length == len(tokenizer(prompt)["input_ids"]) + 32 <= length
            assert row.length > length - 100
            assert row.max_seq_length == length
            assert f"The access code of the north gate is {row.answers[0]}." in row.context
            assert row.answers[0] not in row.input


def test_fact_stands_at_its_depth_between_sentences(make):
    sentences = set(open_haystack("prose").units)
    for loaded in tasks_of(make()):
        assert [row.depth_percent for row in loaded.rows] == DEPTHS * 2
        for row in loaded.rows:
            fact = f"The access code of the north gate is {row.answers[0]}."
            before, after = (part.strip() for part in row.context.split(fact))
            depth = 100 * len(before) / (len(before) + len(after))
            assert row.depth_percent - 10 < depth <= row.depth_percent
            parts = [part for part in (before, after) if part]
            assert len(parts) == (1 if row.depth_percent in (0, 100) else 2)
            for part in parts:
                assert {f"{text}." for text in part.removesuffix(".").split(". ")} <= sentences


def test_starts_differ_and_seeds_repeat(make):
    first, again, other = make("one"), make("two"), make("three", seed=4)
    starts = {row.context[:80] for row in tasks_of(first)[1].rows if row.depth_percent > 0}
    assert len(starts) == 8
    for name in ("tasks.json", "niah_900.jsonl", "niah_2000.jsonl", "made_with.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / "niah_900.jsonl").read_bytes() != (other / "niah_900.jsonl").read_bytes()


def test_own_needle(make):
    needle = Needle("Anna keeps bees on the roof.", "What does Anna keep on the roof?", "bees")
    row = tasks_of(make(needle=needle))[0].rows[0]
    assert row.answers == ["bees"]
    assert row.input == "What does Anna keep on the roof?\nAnswer:"
    with pytest.raises(SparseBalanceError, match="answer = 'wasps': not part of the sentence"):
        replace(needle, answer="wasps")


def test_haystack_repeats_from_its_beginning():
    haystack = replace(open_haystack("noise"), units=("A.", "B.", "C."), separator=" ")
    text = hide("X.", haystack, 5, first=2, depth_percent=50)
    assert text == "C. A. X. B. C. A."


def test_sources_of_text(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "b.txt").write_text("One  two.\nThree!\n\nFour")
    with gzip.open(folder / "a.jsonl.gz", "wt") as file:
        file.write(json.dumps({"name": "n", "text": "你好。再见。"}) + "\n")
    (folder / "ignored.bin").write_bytes(b"\xff")
    assert open_haystack(str(folder)).units == ("你好。", "再见。", "One two.", "Three!", "Four")
    (tmp_path / "long.md").write_text("word " * 1000)
    units = open_haystack(str(tmp_path / "long.md")).units
    assert max(map(len, units)) <= 400
    assert " ".join(units).split() == ["word"] * 1000


def test_texts_that_are_none(tmp_path):
    with pytest.raises(SparseBalanceError, match=r"cannot be read: .* or noise or prose\.$"):
        open_haystack(str(tmp_path / "missing.txt"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(SparseBalanceError, match="cannot be read"):
        open_haystack(str(tmp_path / "bytes"))
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(SparseBalanceError, match="no text in it"):
        open_haystack(str(tmp_path / "empty.txt"))
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"name": "n"}\n')
    with pytest.raises(SparseBalanceError, match=r"bad\.jsonl:2: text"):
        open_haystack(str(tmp_path / "bad.jsonl"))


def test_real_essays(make, real_data):
    folder = make(haystack=str(real_data / "haystack"), num_examples=1)
    assert [len(loaded.rows) for loaded in tasks_of(folder)] == [5, 5]
    assert json.loads((folder / "made_with.json").read_text())["haystack"]["digest"]


def test_depths():
    assert depth_grid(5, spacing="linear") == DEPTHS
    sigmoid = depth_grid(5, spacing="sigmoid")
    assert sigmoid == [0, 7.59, 50, 92.41, 100]
    with pytest.raises(SparseBalanceError, match="num_depths = 1"):
        depth_grid(1, spacing="linear")


@pytest.mark.parametrize(
    "changes",
    [
        {"lengths": []},
        {"lengths": [900, 900]},
        {"lengths": [0]},
        {"depths_percent": [0, 101]},
        {"depths_percent": []},
        {"num_examples": 0},
    ],
)
def test_bad_grids(make, tmp_path, changes):
    with pytest.raises(SparseBalanceError, match=next(iter(changes))):
        make(**changes)
    assert not (tmp_path / "tasks").exists()


def test_length_too_small(make):
    with pytest.raises(SparseBalanceError, match=r"niah_100: max_seq_length = 100: .* tokens"):
        make(lengths=[100])


@pytest.fixture
def predict(tmp_path):
    """Writes predictions that are right where ``is_right(row)``, at most ``limit`` a task."""

    def run(folder, is_right, limit=99):
        out = tmp_path / "eval"
        out.mkdir()
        for loaded in tasks_of(folder):
            rows = [
                row_of(f"It is {row.answers[0] if is_right(row) else 'unknown'}.", row)
                for row in loaded.rows[:limit]
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (out / f"{loaded.task.name}.jsonl").write_text(text)
        (out / "result.json").write_text('{"num_truncated": {}, "truncation_tokens": 4096}')
        return out

    return run


def test_scores_by_length_and_depth(make, predict, tmp_path):
    folder = make()
    eval_dir = predict(folder, lambda row: row.depth_percent == 25 or row.max_seq_length == 900)
    found = score_niah(tasks_of(folder), prediction_dir=eval_dir, out=tmp_path / "out")
    assert found == json.loads((tmp_path / "out/niah.json").read_text())
    assert found["lengths"] == LENGTHS
    assert found["depths_percent"] == DEPTHS
    assert found["scores"] == [[100, 0], [100, 100], [100, 0], [100, 0], [100, 0]]
    assert found["num_examples"] == [[2, 2]] * 5
    assert (found["score_by_length"], found["score_mean"]) == ([100, 20], 60)
    assert (tmp_path / "out/niah.png").read_bytes().startswith(b"\x89PNG")


def test_partly_answered_grids_show_gaps(make, predict, tmp_path):
    folder = make()
    eval_dir = predict(folder, lambda _: True, limit=3)
    found = score_niah(tasks_of(folder), prediction_dir=eval_dir, out=tmp_path / "out")
    assert found["scores"] == [[100, 100]] * 3 + [[None, None]] * 2
    assert found["score_mean"] == 100


def test_predictions_of_other_examples(make, predict, tmp_path):
    eval_dir = predict(make("one"), lambda _: True)
    other = make("two", seed=9)
    with pytest.raises(SparseBalanceError, match="made from other examples"):
        score_niah(tasks_of(other), prediction_dir=eval_dir, out=tmp_path / "out")
    (eval_dir / "niah_900.jsonl").unlink()
    with pytest.raises(
        SparseBalanceError, match=r"niah_900\.jsonl: missing\. evaluate the task first\.$"
    ):
        score_niah(tasks_of(other), prediction_dir=eval_dir, out=tmp_path / "out")


def test_more_predictions_than_examples_are_of_others(make, predict, tmp_path):
    folder = make()
    eval_dir = predict(folder, lambda _: True)
    file = eval_dir / "niah_900.jsonl"
    file.write_text(file.read_text() + file.read_text().splitlines()[-1] + "\n")
    with pytest.raises(SparseBalanceError, match=r"niah_900\.jsonl: made from other examples"):
        score_niah(tasks_of(folder), prediction_dir=eval_dir, out=tmp_path / "out")


def test_examples_that_do_not_say_where_they_belong(make, predict, tmp_path):
    folder = make()
    eval_dir = predict(folder, lambda _: True)
    file = folder / "niah_900.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    del rows[1]["depth_percent"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SparseBalanceError, match=r"niah_900.*example 2: depth_percent: field"):
        score_niah(tasks_of(folder), prediction_dir=eval_dir, out=tmp_path / "out")


def test_truncated_prompts_are_no_grid(make, predict, tmp_path):
    folder = make()
    eval_dir = predict(folder, lambda _: True)
    result = {"num_truncated": {"niah_2000": 10}, "truncation_tokens": 1000}
    (eval_dir / "result.json").write_text(json.dumps(result))
    with pytest.raises(SparseBalanceError, match="niah_2000: 10 prompts lost their middle") as no:
        score_niah(tasks_of(folder), prediction_dir=eval_dir, out=tmp_path / "out")
    assert str(no.value).endswith("at evaluate.max_prompt_tokens = 1000. raise it.")
    assert not (tmp_path / "out").exists()


def test_evaluation_leaves_the_grid(make, make_config, ask, tmp_path):
    folder = make(lengths=[900], max_new_tokens=4)
    ask(make_config(tasks=["niah"], prompt_style="plain"), folder, tmp_path / "eval")
    found = json.loads((tmp_path / "eval/niah.json").read_text())
    assert found["num_examples"] == [[2]] * 5
    assert (tmp_path / "eval/niah.png").is_file()


@pytest.mark.parametrize(("max_examples", "of_each_depth"), [(99, 3), (14, 2), (10, 2), (5, 1)])
def test_fewer_examples_are_as_many_of_every_depth(make, max_examples, of_each_depth):
    folder = make(lengths=[900], num_examples=3)
    (loaded,) = load_tasks([folder], ["niah_900"], max_examples=max_examples)
    assert [row.depth_percent for row in loaded.rows] == DEPTHS * of_each_depth
    assert loaded.num_available == 15
    path = folder / "niah_900.jsonl"  # somebody's own grid, depth after depth
    lines = sorted(
        path.read_text().splitlines(), key=lambda line: json.loads(line)["depth_percent"]
    )
    path.write_text("\n".join(lines))
    (loaded,) = load_tasks([folder], ["niah_900"], max_examples=max_examples)
    expected = [depth for depth in DEPTHS for _ in range(of_each_depth)]
    assert [row.depth_percent for row in loaded.rows] == expected


def test_grids_with_depths_that_are_not_asked_are_refused(make, make_config, ask, tmp_path):
    with pytest.raises(SparseBalanceError) as caught:
        ask(make_config(tasks=["niah"], max_examples=4), make(), tmp_path / "eval")
    assert str(caught.value) == (
        "evaluate.max_examples = 4: niah_900 has 5 depths, some of which would not be asked. "
        "raise it to 5 or more, or make a grid of fewer depths (evaluate.niah.num_depths)."
    )
    assert not (tmp_path / "eval").exists()


def test_limits_that_would_cut_the_fact_out_are_refused(make, make_config, ask, tmp_path):
    config = make_config(tasks=["niah"], max_prompt_tokens=1999)
    with pytest.raises(SparseBalanceError) as caught:
        ask(config, make(), tmp_path / "eval")
    assert str(caught.value) == (
        "evaluate.max_prompt_tokens = 1999: niah_2000 has prompts of 2000 tokens, whose middle "
        "would go. raise it to 2000 or leave the task out."
    )
    assert not (tmp_path / "eval").exists()


def test_large_grids_bear_no_numbers():
    scores = [[50.0] * 35 for _ in range(35)]
    lengths = list(range(1000, 36000, 1000))
    figure = heat_map(Grid(lengths, depth_grid(35, spacing="linear"), scores, []))
    assert not figure.axes[0].texts


def test_heat_map_shows_the_grid():
    figure = heat_map(Grid([1024, 2048], [0.0, 50.0], [[100.0, 20.0], [None, 5.0]], [[1, 1]] * 2))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["100", "20", "5"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1,024", "2,048"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "50"]
    shown = axes.images[0].get_array()
    assert shown[0, 0] == 100
    assert shown.mask[1, 0]


def test_answers_are_found_as_substrings():
    metric = find_metric("match_all", place="here")
    assert metric("The code is 1234567, I think.", ["1234567"], ()) == 1
    assert metric("The code is 123456.", ["1234567"], ()) == 0
