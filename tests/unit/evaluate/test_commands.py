"""The commands: what they leave when all is well, and the one line when it is not."""

import json
import sys
from shutil import copytree

import pytest

import sbcore.cli
from sbcore.cli.progress import describe
from sbcore.config.stages import MakeTasksStage
from sbcore.evaluate.make_tasks import make_tasks


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs `sb WORDS`; returns exit code, stdout and stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["sb", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            sbcore.cli.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def config(tmp_path):
    """A run's configuration, as somebody writes it who only evaluates."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "attention: {block_size: 4, top_k: 2, backend: reference}\n"
        "topology: {device: cpu}\n"
        "evaluate:\n"
        "  tasks: [first, niah, ruler_vt]\n"
        "  niah: {lengths: [600], num_depths: 2, num_examples: 1, max_new_tokens: 2}\n"
        "  ruler: {lengths: [2400], tasks: [ruler_vt], num_examples: 1}\n"
        "  prompt_style: plain\n"
        "variants:\n"
        "  baseline: {max_sequences: 1}\n"
        "  dense: {attention: dense}\n"
    )
    return path


@pytest.fixture
def evaluate(call, config, model_dir, tokenizer_dir, task_dir, tmp_path):
    def run(*words, model=model_dir, tokenizer=tokenizer_dir, tasks=(task_dir,)):
        folders = [word for folder in tasks for word in ("--tasks", folder)]
        usual = ("--model", model, "--tokenizer", tokenizer, "--out", tmp_path / "eval")
        return call("evaluate", "--config", config, *usual, *folders, *words)

    return run


def narrow(config, **changes):
    """Lets the configuration ask for the folder's own task, with other settings."""
    text = config.read_text().replace("[first, niah, ruler_vt]", "[first]")
    extra = "".join(f"  {key}: {value}\n" for key, value in changes.items())
    config.write_text(text.replace("  prompt_style: plain\n", extra or "  prompt_style: plain\n"))


def test_made_tasks_and_others_are_evaluated_together(
    call, config, evaluate, tokenizer_dir, task_dir, tmp_path
):
    made = tmp_path / "made"
    words = ("make-tasks", "--config", config, "--tokenizer", tokenizer_dir, "--out", made)
    code, out, _ = call(*words)
    assert (code, out.split(", in")[0]) == (0, "make-tasks: niah: 1 tasks, ruler: 1 tasks")
    tasks = (task_dir, made / "niah", made / "ruler")
    code, out, _ = evaluate("--variant", "dense", tasks=tasks)
    assert code == 0
    assert out.startswith("evaluate dense: mean score ")
    result = json.loads((tmp_path / "eval/result.json").read_text())
    assert list(result["scores"]) == ["first", "niah_600", "ruler_vt_2400"]
    assert result["categories"]["ruler_vt_2400"] == "ruler"
    assert [len(scores) for scores in result["example_scores"].values()] == [5, 2, 1]
    for name in ("niah.json", "niah.png", "ruler.json", "manifest.json"):
        assert (tmp_path / "eval" / name).is_file()
    code, out, _ = call("evaluate", "--score-only", tmp_path / "eval", "--json")
    assert (code, json.loads(out)["scores"]) == (0, result["scores"])


def test_making_tasks_shows_how_far_it_is(call, config, tokenizer_dir, tmp_path, monkeypatch):
    words = ("make-tasks", "--config", config, "--tokenizer", tokenizer_dir, "--out", tmp_path)
    assert call(*words)[::2] == (0, "")  # no terminal, and done before the first line is due
    monkeypatch.setattr("sbcore.cli.progress._SECONDS_BETWEEN_LINES", 0.0)
    lines = [line.partition(", 0 s left")[0] for line in call(*words)[2].splitlines()]
    assert lines[0].startswith("make-tasks niah:  50 %, 1 of 2")
    assert lines[1:] == ["make-tasks niah: 100 %, 2 of 2", "make-tasks ruler: 100 %, 1 of 1"]


def test_tasks_are_made_without_a_bar_too(tokenizer_dir, tmp_path):
    niah = {"lengths": [600], "num_depths": 2, "num_examples": 1}
    values = {"seed": 1, "niah": niah, "ruler": None, "ruler_files": {}, "longbench_v2": None}
    config = MakeTasksStage.model_validate(values)
    assert make_tasks(config, tokenizer_dir=tokenizer_dir, out=tmp_path) == {"niah": ["niah_600"]}


def test_sets_that_are_no_longer_asked_for_are_removed(call, config, tokenizer_dir, tmp_path):
    words = ("make-tasks", "--config", config, "--tokenizer", tokenizer_dir, "--out", tmp_path)
    call(*words)
    config.write_text(config.read_text().replace("  ruler: {", "  #"))
    call(*words)
    assert (tmp_path / "niah").is_dir()
    assert not (tmp_path / "ruler").exists()


def test_budget_curve(call, config, model_dir, tokenizer_dir, task_dir, tmp_path):
    narrow(config, curve_top_k="[1]")
    folders = ("--model", model_dir, "--tokenizer", tokenizer_dir, "--tasks", task_dir)
    code, out, _ = call("budget-curve", "--config", config, *folders, "--out", tmp_path / "curve")
    assert code == 0
    assert out.startswith("budget-curve baseline: mean score by top_k: 1: ")
    for name in ("budget_curve.json", "budget_curve.csv", "budget_curve.png", "manifest.json"):
        assert (tmp_path / "curve" / name).is_file()


def test_progress_counts_examples_of_all_tasks(ask, make_config, task_dir, tmp_path):
    from rich.progress import Progress

    bars = Progress(disable=True)
    bars.console.quiet = True
    ask(make_config(), task_dir, tmp_path / "out", progress=bars)
    (bar,) = bars.tasks
    assert describe(bar).startswith("evaluate second: 100 %, 8 of 8")
    again = Progress(disable=True)
    again.console.quiet = True
    ask(make_config(), task_dir, tmp_path / "out", progress=again)
    assert again.tasks[0].completed == 8  # nothing was left to do


def test_a_folder_without_a_model_is_named_as_it_was_given(
    evaluate, config, model_dir, tmp_path, tokenizer_dir
):
    narrow(config)
    assert evaluate(model=tokenizer_dir)[::2] == (
        2,
        f"{tokenizer_dir}: not a model directory, config.json is missing. "
        "give a Hugging Face directory.\n",
    )
    shape = json.loads((model_dir / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(shape | {"model_type": "gpt2"}))
    assert evaluate(model=tmp_path)[2] == (
        f"{tmp_path}: model_type = gpt2: not supported. use one of qwen2, qwen3, llama.\n"
    )
    assert not (tmp_path / "eval").exists()


def test_prompts_beyond_the_models_positions_are_told_once(
    evaluate, config, model_dir, task_dir, tmp_path
):
    config.write_text(config.read_text().replace("[first, niah, ruler_vt]", "[first, second]"))
    copytree(model_dir, tmp_path / "model")
    path = tmp_path / "model/config.json"
    shape = json.loads(path.read_text())
    # <s>, "some words", at most five letters of question and 6 tokens of answer
    path.write_text(json.dumps(shape | {"max_position_embeddings": 22}))
    code, _, error = evaluate(model=tmp_path / "model")
    assert (code, "warning" in error) == (0, False)
    path.write_text(json.dumps(shape | {"max_position_embeddings": 18}))
    code, _, error = evaluate(model=tmp_path / "model")
    assert code == 0
    assert [line for line in error.splitlines() if "positions" in line] == [
        "warning: first: a prompt of 16 tokens and its answer of up to 6 pass the model's 18 "
        "positions: such answers are bad. set evaluate.max_prompt_tokens to 12 or less (a chat "
        "template adds to it), or leave the task out."
    ]


def test_missing_task_file(evaluate, config, task_dir):
    narrow(config)
    (task_dir / "first.jsonl").unlink()
    assert evaluate()[::2] == (
        2,
        f"{task_dir}: first: no first.jsonl or first.jsonl.gz in it or in its data/. "
        "add the file, or take the task out of evaluate.tasks.\n",
    )


def test_wrong_fields(evaluate, config, task_dir):
    narrow(config)
    row = json.loads((task_dir / "first.jsonl").read_text().splitlines()[0])
    broken = {"answers": []}, {"input": 3}
    lines = [json.dumps(row), *(json.dumps(row | change) for change in broken)]
    (task_dir / "first.jsonl").write_text("\n".join(lines))
    needs = "a row needs input, context, answers, all_classes, length."
    assert evaluate()[::2] == (
        2,
        f"{task_dir}/first.jsonl:2: answers = []: list should have at least 1 item after "
        f"validation, not 0. {needs}\n",
    )
    (task_dir / "first.jsonl").write_text("\n".join([lines[0], "", lines[2]]))
    assert evaluate()[2] == (
        f"{task_dir}/first.jsonl:3: input = 3: input should be a valid string. {needs}\n"
    )


def test_a_field_that_only_the_template_names(evaluate, config, task_dir):
    narrow(config)
    tasks = task_dir / "tasks.json"
    tasks.write_text(tasks.read_text().replace("{context}{input}", "{text}"))
    assert evaluate()[::2] == (
        2,
        f"{task_dir}/first.jsonl: row 1: template: KeyError: 'text'. "
        "name only fields of the row in braces.\n",
    )


def test_unknown_task(evaluate, config, task_dir):
    config.write_text(config.read_text().replace("[first, niah, ruler_vt]", "[firstt]"))
    code, _, error = evaluate()
    assert code == 2
    message = f"{task_dir}: task = 'firstt': unknown. Did you mean 'first'? Available"
    assert error.startswith(message)


def test_a_group_that_is_not_there(evaluate, config, task_dir):
    config.write_text(config.read_text().replace("[first, niah, ruler_vt]", "[longbench]"))
    assert evaluate()[::2] == (
        2,
        f"evaluate.tasks: longbench: none of its tasks is in {task_dir}. "
        "give the folder of the benchmark's data.\n",
    )


def test_model_without_chat_template(evaluate, config, task_dir, tokenizer, tmp_path):
    narrow(config, prompt_style="chat")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    tasks = json.loads((task_dir / "tasks.json").read_text())
    tasks["first"]["chat"] = True
    (task_dir / "tasks.json").write_text(json.dumps(tasks))
    assert evaluate(tokenizer=tmp_path / "base")[::2] == (
        2,
        f"{tmp_path}/base: the tokenizer has no chat template. add chat_template.jinja to the "
        "directory, or set evaluate.prompt_style to plain, as base models are asked.\n",
    )


def test_fewer_predictions_than_examples(call, tmp_path):
    row = {"pred": "a", "answers": ["a"], "all_classes": None, "length": 1}
    (tmp_path / "qasper.jsonl").write_text(json.dumps(row) + "\n")
    code, out, error = call("evaluate", "--score-only", tmp_path)
    assert (code, error) == (0, "note: qasper: 1 rows, the task has 200: partial.\n")
    assert "1/200" in out


def test_packages_that_are_missing(evaluate, config, task_dir, monkeypatch, tmp_path):
    narrow(config)
    tasks = task_dir / "tasks.json"
    tasks.write_text(tasks.read_text().replace("match_part", "rouge_zh"))
    monkeypatch.setattr("sbcore.evaluate.metrics.find_spec", lambda name: name == "rouge" or None)
    assert evaluate()[::2] == (
        2,
        "first: metric = rouge_zh: needs the package jieba. pip install jieba, or leave the task "
        "out here and score its predictions elsewhere.\n",
    )
    assert not (tmp_path / "eval").exists()


def test_variant_that_is_none(evaluate):
    code, _, error = evaluate("--variant", "dens")
    assert (code, error) == (
        2,
        "--variant = 'dens': unknown. Did you mean 'dense'? Available: baseline, dense.\n",
    )


def test_options_that_are_missing(call, config):
    words = ("evaluate", "--config", config, "--model", "m", "--out", "o")
    assert call(*words)[::2] == (2, "--tasks: missing. give it, or use --score-only FOLDER.\n")


def test_nothing_to_make(call, tokenizer_dir, tmp_path):
    (tmp_path / "none.yaml").write_text("run: mine\n")
    words = ("--config", tmp_path / "none.yaml", "--tokenizer", tokenizer_dir, "--out", tmp_path)
    assert call("make-tasks", *words)[::2] == (
        2,
        "evaluate: niah, ruler, ruler_files and longbench_v2 are not set: nothing to make. "
        "write evaluate.niah: {} for a grid of defaults.\n",
    )
