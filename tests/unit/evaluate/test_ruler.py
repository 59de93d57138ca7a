"""RULER's tasks: what an example asks can be worked out from its text alone, and its size fits."""

import json
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.niah.fitting import PromptFitter
from sbcore.evaluate.niah.words import ADJECTIVES, NOUNS, NUM_PAIRS, pair
from sbcore.evaluate.prompts import fill_template
from sbcore.evaluate.ruler.averages import ruler_scores
from sbcore.evaluate.ruler.make import MADE, make_ruler
from sbcore.evaluate.ruler.official import import_ruler
from sbcore.evaluate.ruler.tasks import TASKS, split_name
from sbcore.evaluate.scores import score_predictions
from sbcore.evaluate.scoring import score_rows
from sbcore.evaluate.task_folder import load_tasks
from sbcore.evaluate.task_names import harness_name

LENGTH = 2400  # bytes are tokens here
FACT = re.compile(r"The (?:number|code) registered for (\S+) is ([0-9a-f-]+)\.")

# facts in the text, keys asked for, values each: by the paper's table
RETRIEVAL = {
    "niah_single_1": (1, 1, 1),
    "niah_single_2": (1, 1, 1),
    "niah_single_3": (1, 1, 1),
    "niah_multikey_1": (4, 1, 1),
    "niah_multikey_2": (None, 1, 1),
    "niah_multikey_3": (None, 1, 1),
    "niah_multivalue": (4, 1, 4),
    "niah_multiquery": (4, 4, 1),
}


@pytest.fixture
def make(tokenizer_dir, tmp_path):
    def run(name="made", **changes):
        values = {
            "tasks": MADE,
            "lengths": [LENGTH],
            "num_examples": 3,
            "haystack": "prose",
            "seed": 5,
        }
        make_ruler(tmp_path / name, tokenizer_dir=tokenizer_dir, **(values | changes))
        return tmp_path / name

    return run


@pytest.fixture(scope="module")
def made(tokenizer_dir, tmp_path_factory):
    """Every task at one length, as the evaluator reads it."""
    out = tmp_path_factory.mktemp("ruler")
    sized = make_ruler(
        out,
        tokenizer_dir=tokenizer_dir,
        tasks=MADE,
        lengths=[LENGTH],
        num_examples=3,
        haystack="prose",
        seed=5,
    )
    loaded = load_tasks([out], sized, max_examples=99)
    return dict(zip(MADE, loaded, strict=True))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_no_word_is_part_of_another():
    words = ADJECTIVES + NOUNS
    assert len(set(words)) == len(words) > 800
    assert not [word for word in words for other in words if word != other and word in other]
    assert (pair(0), pair(NUM_PAIRS - 1)) == ("acid-abbey", "zealous-zipper")


def test_names_are_those_of_lm_evaluation_harness():
    assert set(TASKS) - set(RETRIEVAL) == {
        "ruler_vt",
        "ruler_cwe",
        "ruler_fwe",
        "ruler_qa_squad",
        "ruler_qa_hotpot",
    }
    assert len(MADE) == 11
    assert split_name("niah_single_1_4096") == ("niah_single_1", 4096)
    assert split_name("niah_single_1") is None
    assert split_name("hotpotqa_e") is None


def test_names_in_results_are_those_of_lm_evaluation_harness():
    known = {
        "niah_single_1_4096": "niah_single_1",  # there the length is the score's name
        "ruler_vt_131072": "ruler_vt",
        "repobench-p": "longbench_repobench-p",
        "qasper_e": "longbench_qasper_e",
        "niah_4096": "niah_4096",
        "recall": "recall",
    }
    assert {name: harness_name(name) for name in known} == known


def test_names_nearly_right(made):
    folder = made["ruler_vt"].path.parent
    for name, meant in (
        ("rule_vt", "ruler_vt"),
        ("rulr", "ruler"),
        ("niah_singl_1", "niah_single_1"),
    ):
        with pytest.raises(SparseBalanceError, match=f"'{name}': unknown. Did you mean '{meant}'"):
            load_tasks([folder], [name], max_examples=1)


@pytest.mark.parametrize("name", MADE)
def test_prompt_and_answer_fill_the_length(made, tokenizer, name):
    loaded = made[name]
    for row in loaded.rows:
        prompt = fill_template(loaded.template, row, place="here")
        length = len(tokenizer(prompt)["input_ids"]) + loaded.task.max_new_tokens
        assert row.length == length <= LENGTH == row.max_seq_length
        assert length > LENGTH - 200  # less than the largest unit, two facts of uuids


@pytest.mark.parametrize("name", MADE)
def test_scores(made, name):
    loaded = made[name]
    values = [{**row.model_dump(), "pred": ", ".join(row.answers).upper()} for row in loaded.rows]
    rows = [SimpleNamespace(**value) for value in values]
    assert score_rows(loaded.task, rows, loaded.path).score == 100
    for row in rows:
        row.pred = row.answers[0]
    assert score_rows(loaded.task, rows, loaded.path).score == pytest.approx(
        100 / len(rows[0].answers), abs=0.005
    )


@pytest.mark.parametrize("name", RETRIEVAL)
def test_answers_are_the_values_of_the_keys_asked_for(made, name):
    num_facts, num_keys, num_values = RETRIEVAL[name]
    for row in made[name].rows:
        facts = FACT.findall(row.context)
        assert num_facts in (None, len(facts))
        assert len({key for key, _ in facts}) == len(facts) // num_values
        question = row.input.splitlines()[0]
        asked = [key for key in dict.fromkeys(key for key, _ in facts) if key in question]
        assert len(asked) == num_keys
        assert sorted(row.answers) == sorted(value for key, value in facts if key in asked)


def test_facts_stand_at_several_depths(make):
    folder = make(tasks=["niah_single_1", "niah_single_2"], num_examples=12)
    for name in ("niah_single_1", "niah_single_2"):
        rows = map(json.loads, (folder / f"{name}_{LENGTH}.jsonl").open())
        depths = [FACT.search(row["context"]).start() / len(row["context"]) for row in rows]
        assert min(depths) < 0.3
        assert max(depths) > 0.7


def assigned(text):
    values = {}
    for name, source in re.findall(r"SET (\w+) = (\w+)\.", text):
        values[name] = values.get(source, source)
    return values


def test_variables_are_traced(made):
    for row in made["ruler_vt"].rows:
        number = re.search(r"value (\d+)", row.input).group(1)
        values = assigned(row.context)
        assert values == dict.fromkeys(row.answers, number)
        assert len(values) == 5
        assert len(re.findall(r"SET \w+ = \d+\.", row.context)) == 1  # a chain, not a star
        shown = assigned(row.example)
        assert row.example.endswith(" ".join(f"{name}," for name in shown)[:-1] + ".")
        assert not set(shown) & set(values)


def entries(text):
    return Counter(re.findall(r"\d+\. (\S+)", text))


@pytest.mark.parametrize(("length", "common", "others"), [(4000, 6, 1), (9000, 30, 3)])
def test_common_words_are_repeated_most(make, length, common, others):
    folder = make(tasks=["ruler_cwe"], lengths=[length])
    for row in map(json.loads, (folder / f"ruler_cwe_{length}.jsonl").open()):
        counts = entries(row["context"])
        assert {word for word, n in counts.items() if n == common} == set(row["answers"])
        assert len(row["answers"]) == 10
        assert set(counts.values()) == {common, others}
        example, answer = row["example"].split("\n\n")
        ten = entries(answer.splitlines()[1])
        assert {word for word, _ in entries(example).most_common(10)} == set(ten)


def test_long_lists_are_made_of_pairs(make):
    folder = make(tasks=["ruler_cwe"], lengths=[60_000], num_examples=1)
    row = json.loads((folder / "ruler_cwe_60000.jsonl").read_text())
    counts = entries(row["context"])
    assert len(counts) > len(ADJECTIVES + NOUNS)
    assert {word for word, n in counts.items() if n == 30} == set(row["answers"])


def test_frequent_words_are_ahead(made):
    for row in made["ruler_fwe"].rows:
        (first, most), *ranked = Counter(row.context.split()).most_common(5)
        assert first == "..."
        assert [word for word, _ in ranked[:3]] == row.answers
        counts = [most, *(n for _, n in ranked)]
        assert counts == sorted(set(counts), reverse=True)
        assert counts[0] / counts[1] == pytest.approx(4, rel=0.1)


def test_equal_seeds_write_equal_bytes(make):
    assert contents(make("one")) == contents(make("two"))
    other = contents(make("three", seed=6))
    first = contents(make("one"))
    assert all(first[name] != other[name] for name in first if name.endswith(".jsonl"))


def test_examples_do_not_depend_on_their_number(make):
    few, many = make("few", num_examples=2), make("many", num_examples=4)
    for name in MADE:
        lines = (many / f"{name}_{LENGTH}.jsonl").read_text().splitlines()
        assert (few / f"{name}_{LENGTH}.jsonl").read_text().splitlines() == lines[:2]


def test_own_text_as_haystack(make, tmp_path):
    (tmp_path / "essay.txt").write_text("It was warm! Was it late? Yes. ")
    folder = make(tasks=["niah_single_2"], haystack=str(tmp_path / "essay.txt"))
    row = json.loads((folder / f"niah_single_2_{LENGTH}.jsonl").read_text().splitlines()[0])
    rest = FACT.sub("", row["context"]).replace("  ", " ").strip()
    assert set(re.split(r"(?<=[.!?]) ", rest)) == {"It was warm!", "Was it late?", "Yes."}


def test_bad_input(make, tmp_path):
    with pytest.raises(SparseBalanceError, match="Did you mean 'niah_single_1'"):
        make(tasks=["niah_singel_1"])
    with pytest.raises(SparseBalanceError, match="ruler_qa_squad': needs a data set"):
        make(tasks=["ruler_qa_squad"])
    with pytest.raises(SparseBalanceError, match="lengths"):
        make(lengths=[LENGTH, LENGTH])
    with pytest.raises(SparseBalanceError, match="num_examples = 0"):
        make(num_examples=0)
    assert not (tmp_path / "made").exists()


def test_failure_leaves_no_tasks(make, tmp_path):
    make()
    with pytest.raises(SparseBalanceError, match=r"niah_single_1_300: .* have \d+ tokens"):
        make(lengths=[LENGTH, 300])
    assert not (tmp_path / "made" / "tasks.json").exists()
    assert (make() / "tasks.json").is_file()


def test_folders_of_others_are_left_alone(make, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "tasks.json").write_text("{}")
    with pytest.raises(SparseBalanceError, match="files of another kind"):
        make()


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    limit=st.integers(12, 400),
    guess=st.integers(0, 500),
)
def test_prompts_are_as_long_as_they_can_be(sizes, limit, guess):
    def tokenizer(text, verbose):
        return {"input_ids": text.split()}

    fitter = PromptFitter(tokenizer, "{units}", limit, 2, guess)
    endless = [" x" * sizes[i % len(sizes)] for i in range(limit + 501)]
    row = fitter.fit(lambda n: {"units": "".join(endless[:n])}, smallest=1, place="here")
    assert row["length"] == len(row["units"].split()) + 2 <= limit
    assert limit - row["length"] < max(sizes)


# Rounded figures of the paper's table for one model: 4K to 128K, average, both weighted ones.
PUBLISHED = ([96.6, 96.3, 95.2, 93.2, 87.0, 81.2], 91.6, 89.0, 94.1)


def test_weighted_averages_are_the_published_ones():
    means, average, increasing, decreasing = PUBLISHED
    lengths = [4096 << i for i in range(6)]
    scores = {
        f"{task}_{length}": mean + shift
        for length, mean in zip(lengths, means, strict=True)
        for task, shift in (("ruler_vt", 1.5), ("niah_single_1", -1.5))
    }
    found = ruler_scores(scores | {"qasper_e": 12.0, "score_8": 1.0})
    assert found.lengths == dict(zip(lengths, means, strict=True))
    assert round(found.average, 1) == average
    assert round(found.weighted_average_increasing, 1) == increasing
    assert round(found.weighted_average_decreasing, 1) == decreasing
    assert list(found.tasks["ruler_vt"]) == lengths


def test_incomplete_tables_have_no_mean():
    found = ruler_scores({"ruler_vt_4096": 50.0, "ruler_vt_8192": 40.0, "ruler_cwe_4096": 1.0})
    assert found.tasks == {"ruler_vt": {4096: 50.0, 8192: 40.0}, "ruler_cwe": {4096: 1.0}}
    assert found.lengths is found.average is found.weighted_average_increasing is None


def test_evaluation_leaves_the_averages(make, make_config, ask, tmp_path):
    names = [f"niah_single_1_{LENGTH}", f"ruler_vt_{LENGTH}"]
    config = make_config(tasks=["niah_single_1", "ruler_vt"], max_examples=1)
    result = ask(config, make(), tmp_path / "eval")
    assert list(result["scores"]) == names
    assert result["num_truncated"] == dict.fromkeys(names, 0)
    assert score_predictions(tmp_path / "eval").scores == result["scores"]
    found = json.loads((tmp_path / "eval/ruler.json").read_text())
    assert list(found["tasks"]) == ["niah_single_1", "ruler_vt"]
    assert found["average"] == result["score_mean"]


def official_file(path, **changes):
    row = {"index": 0, "input": "Text {with} braces.", "outputs": ["1", "2"], "length": 9}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(row | changes) + "\n")


def test_official_files_keep_their_prompts(tmp_path):
    official_file(tmp_path / "4k/vt/validation.jsonl", answer_prefix=" Answer:", extra=1)
    official_file(tmp_path / "4k/qa_1.jsonl")
    official_file(tmp_path / "8k/niah_multikey_1.jsonl")
    rows = []
    folders = {4096: tmp_path / "4k", 8192: tmp_path / "8k"}
    names = import_ruler(tmp_path / "out", folders=folders, on_row=lambda: rows.append(1))
    assert len(rows) == 3
    assert names == ["ruler_vt_4096", "ruler_qa_squad_4096", "niah_multikey_1_8192"]
    loaded = load_tasks([tmp_path / "out"], names, max_examples=9)
    prompts = [fill_template(task.template, task.rows[0], place="here") for task in loaded]
    assert prompts == ["Text {with} braces. Answer:", "Text {with} braces.", "Text {with} braces."]
    assert [task.task.metric for task in loaded] == ["match_all", "match_part", "match_all"]
    assert [task.task.max_new_tokens for task in loaded] == [30, 32, 128]
    assert loaded[0].rows[0].answers == ["1", "2"]


def test_official_files_that_are_none(tmp_path):
    with pytest.raises(SparseBalanceError, match="no file of RULER's"):
        import_ruler(tmp_path / "out", folders={4096: tmp_path})
    official_file(tmp_path / "vt.jsonl", outputs=[])
    with pytest.raises(SparseBalanceError, match=r"vt\.jsonl:1: outputs"):
        import_ruler(tmp_path / "out", folders={4096: tmp_path})
    assert not (tmp_path / "out" / "tasks.json").exists()
