"""The stage from model directory to result.json: greedy, resumable, open about what is missing."""

import json
from dataclasses import replace
from shutil import copytree

import pytest
import torch

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.generate import Generator, end_tokens
from sbcore.evaluate.loading import load_generator
from sbcore.evaluate.longbench import STANDARD
from sbcore.evaluate.prompts import encode_prompt
from sbcore.evaluate.scores import score_predictions

FILES = ("first.jsonl", "second.jsonl", "result.json")


@pytest.fixture
def start(ask, task_dir):
    def run(config, out, **changes):
        return ask(config, task_dir, out, **changes)

    return run


@pytest.fixture
def generator(model_dir, tokenizer, make_config):
    return load_generator(
        make_config(), model_dir=model_dir, tokenizer=tokenizer, device=torch.device("cpu")
    )


@pytest.fixture
def generate(generator, tokenizer):
    def run(texts, task):
        prompts = [encode_prompt(tokenizer, t, chat=False, max_prompt_tokens=99) for t in texts]
        return generator.answer(prompts, task)

    generator.packed.model.generation_config.eos_token_id = None
    return run


def contents(out):
    return {name: (out / name).read_bytes() for name in FILES}


def greedy_by_hand(model_dir, tokenizer, text, num_tokens):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, attn_implementation="eager")
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    new = []
    with torch.inference_mode():
        for _ in range(num_tokens):
            token = int(model(ids).logits[0, -1].argmax())
            new.append(token)
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return new


def task_of(num_tokens, **changes):
    return replace(STANDARD[0], max_new_tokens=num_tokens, **changes)


def test_generation_takes_the_largest_logit(generate, model_dir, tokenizer):
    texts = ["some words", "more words"]
    expected = [
        tokenizer.decode(greedy_by_hand(model_dir, tokenizer, text, 5), skip_special_tokens=True)
        for text in texts
    ]
    assert generate(texts, task_of(5)) == expected
    assert generate(texts[:1], task_of(5)) == expected[:1]


def test_generation_ends_after_an_end_token(generator, model_dir, tokenizer):
    second = greedy_by_hand(model_dir, tokenizer, "some words", 2)
    prompt = encode_prompt(tokenizer, "some words", chat=False, max_prompt_tokens=99)
    generator.packed.model.generation_config.eos_token_id = second[1:]
    assert generator.answer([prompt], task_of(5)) == [tokenizer.decode(second)]


def test_newline_ends_a_dialogue_summary_but_not_at_once(generator, tokenizer):
    model = generator.packed.model
    newline = tokenizer.encode("\n", add_special_tokens=False)[-1]
    with torch.no_grad():  # every next token is a line's end
        model.lm_head.weight.zero_()
        model.lm_head.weight[newline] = 0.0
        model.model.norm.weight.fill_(1.0)
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(258))
    with torch.no_grad():
        model.lm_head.bias[newline] = 2.0
        model.lm_head.bias[ord("x")] = 1.0
    prompt = encode_prompt(tokenizer, "words", chat=False, max_prompt_tokens=99)
    free = generator.answer([prompt], task_of(4))
    stopped = generator.answer([prompt], task_of(4, stop_at_newline=True))
    assert free == ["\n\n\n\n"]
    assert len(stopped[0]) == 2
    assert stopped[0][1] == "\n"


def test_end_tokens_are_the_models_and_the_tokenizers(tokenizer):
    assert end_tokens([7, 1], tokenizer) == [7, 1]
    assert end_tokens(7, tokenizer) == [7, 1]
    assert end_tokens(None, tokenizer) == [1]


def test_result_and_predictions(start, make_config, tmp_path):
    result = start(make_config(), tmp_path / "out")
    assert result == json.loads((tmp_path / "out/result.json").read_text())
    assert result["num_examples"] == {"first": 5, "second": 3}
    assert result["chance"] == {"first": 12.5}
    assert result["truncation_tokens"] == 4096
    assert result["num_truncated"] == {"first": 0, "second": 0}
    assert result["partial"] is False
    mean = sum(result["scores"].values()) / 2
    assert result["score_mean"] == pytest.approx(mean, abs=0.005)
    rows = [json.loads(line) for line in (tmp_path / "out/first.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows] == [["pred", "answers", "all_classes", "length"]] * 5
    assert not list((tmp_path / "out").glob("*.partial"))


def test_written_predictions_are_scored_alike(start, make_config, tmp_path):
    result = start(make_config(), tmp_path / "out")
    assert score_predictions(tmp_path / "out").scores == result["scores"]


def test_equal_runs_write_equal_bytes(start, make_config, tmp_path):
    start(make_config(), tmp_path / "one")
    start(make_config(), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("limit", [4, 5])
def test_truncated_prompts_are_counted(start, make_config, tmp_path, limit):
    result = start(make_config(max_prompt_tokens=limit), tmp_path / "out")
    assert result["num_truncated"] == {"first": 5, "second": 3}


def test_max_examples_asks_the_first_ones(start, make_config, tmp_path):
    result = start(make_config(max_examples=2), tmp_path / "out")
    assert result["num_examples"] == {"first": 2, "second": 2}
    assert result["num_available"] == {"first": 5, "second": 3}


class Killed(Exception):
    pass


@pytest.fixture
def counted(monkeypatch):
    """Counts generated prompts; set ``limit`` to be killed after so many batches."""

    class Count:
        prompts = 0
        batches = 0
        limit = None

    original = Generator.answer

    def answer(self, prompts, task):
        if Count.batches == Count.limit:
            raise Killed
        Count.batches += 1
        Count.prompts += len(prompts)
        return original(self, prompts, task)

    monkeypatch.setattr(Generator, "answer", answer)
    return Count


def test_killed_run_goes_on_where_it_was(start, make_config, tmp_path, counted):
    start(make_config(batch_size=1), tmp_path / "whole")
    counted.prompts, counted.batches, counted.limit = 0, 0, 2
    with pytest.raises(Killed):
        start(make_config(batch_size=1), tmp_path / "out")
    assert json.loads((tmp_path / "out/result.json").read_text())["partial"] is True
    assert not (tmp_path / "out/first.jsonl").exists()
    with (tmp_path / "out/first.jsonl.partial").open("a") as file:
        file.write('{"index": 4, "pr')  # a torn line
    counted.limit = None
    start(make_config(batch_size=1), tmp_path / "out")
    assert counted.prompts == 8
    assert contents(tmp_path / "whole") == contents(tmp_path / "out")


def test_partial_result_keeps_the_finished_tasks(start, make_config, tmp_path, counted):
    counted.limit = 6
    with pytest.raises(Killed):
        start(make_config(batch_size=1), tmp_path / "out")
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert (list(result["scores"]), result["partial"]) == (["first"], True)
    scored = score_predictions(tmp_path / "out")
    assert list(scored.scores) == ["first"]
    assert scored.notices == [
        "partial: 1 tasks of an evaluation are not finished (second). let it finish, or run it "
        "again: it goes on where it was."
    ]
    (tmp_path / "out/first.jsonl").unlink()
    with pytest.raises(SparseBalanceError, match="nothing to score: 1 tasks of an evaluation"):
        score_predictions(tmp_path / "out")


def test_finished_run_generates_nothing_again(start, make_config, tmp_path, counted):
    first = start(make_config(), tmp_path / "out")
    assert counted.prompts == 8
    counted.prompts = 0
    assert start(make_config(), tmp_path / "out") == first
    assert counted.prompts == 0


OWN_ROW = {"pred": "a", "answers": ["a"], "all_classes": None, "length": 2}


@pytest.mark.parametrize(
    ("name", "row", "is_known"),
    [
        ("second.jsonl", OWN_ROW, False),
        ("second.jsonl.gz", OWN_ROW, True),
        ("second.jsonl", {"doc_id": 3, "resps": [["a"]]}, True),
        ("second.jsonl", OWN_ROW | {"_id": "x"}, True),
        ("second.jsonl", OWN_ROW | {"pred": 3}, True),
        ("second.jsonl", [1], True),
        ("state.json", [], False),
    ],
)
def test_what_something_else_wrote_is_not_replaced(
    start, make_config, tmp_path, name, row, is_known
):
    out = tmp_path / "out"
    if is_known:
        start(make_config(), out)
        (out / "second.jsonl").unlink()
    out.mkdir(exist_ok=True)
    (out / name).write_text(json.dumps(row) + "\n")
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(SparseBalanceError) as caught:
        start(make_config(max_examples=1), out)
    assert str(caught.value) == (
        f"{out / name}: not written by an evaluation here, which would replace it. "
        "move it away, or evaluate into another folder."
    )
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_examples_are_not_replaced_by_their_answers(start, make_config, task_dir):
    examples = (task_dir / "first.jsonl").read_bytes()
    with pytest.raises(SparseBalanceError, match=r"first\.jsonl: not written by an evaluation"):
        start(make_config(), task_dir)
    assert (task_dir / "first.jsonl").read_bytes() == examples


def test_rows_that_were_cut_off_are_made_again(start, make_config, tmp_path, counted):
    start(make_config(), tmp_path / "out")
    whole = contents(tmp_path / "out")
    path = tmp_path / "out/first.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    start(make_config(), tmp_path / "out")
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "first.jsonl").write_text(
            (folder / "first.jsonl").read_text().replace("some", "other")
        ),
        lambda folder: (folder / "tasks.json").write_text(
            (folder / "tasks.json").read_text().replace('"{context}{input}"', '"{input}"', 1)
        ),
    ],
)
def test_other_examples_or_templates_are_generated_again(
    start, make_config, tmp_path, task_dir, counted, change
):
    start(make_config(), tmp_path / "out")
    counted.prompts = 0
    change(task_dir)
    start(make_config(), tmp_path / "out")
    assert counted.prompts == 5


def test_other_attention_is_generated_again(start, make_config, tmp_path, counted):
    start(make_config(), tmp_path / "out")
    counted.prompts = 0
    dense = contents(tmp_path / "out")
    start(make_config(kind="sparse"), tmp_path / "out")
    assert counted.prompts == 8
    assert contents(tmp_path / "out")["first.jsonl"] != dense["first.jsonl"]


def test_full_budget_answers_like_dense(start, make_config, tmp_path):
    config = make_config(kind="sparse")
    wide = config.model_copy(
        update={"attention": config.attention.model_copy(update={"top_k": 99})}
    )
    assert start(wide, tmp_path / "sparse") == start(make_config(), tmp_path / "dense")
    one, two = contents(tmp_path / "sparse"), contents(tmp_path / "dense")
    assert one == two


def test_no_chat_template(start, make_config, tmp_path, tokenizer, task_dir):
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "plain")
    start(make_config(), tmp_path / "out", tokenizer_dir=tmp_path / "plain")  # no task needs it
    described = json.loads((task_dir / "tasks.json").read_text())
    described["second"]["chat"] = True
    (task_dir / "tasks.json").write_text(json.dumps(described))
    with pytest.raises(SparseBalanceError, match="no chat template"):
        start(make_config(), tmp_path / "out", tokenizer_dir=tmp_path / "plain")


def test_folders_that_are_none(start, make_config, tmp_path):
    with pytest.raises(SparseBalanceError, match="not a tokenizer directory"):
        start(make_config(), tmp_path / "out", tokenizer_dir=tmp_path)
    with pytest.raises(SparseBalanceError, match="not a model directory"):
        start(make_config(), tmp_path / "out", model_dir=tmp_path)
    assert not list((tmp_path / "out").glob("*.jsonl"))


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("tokenizer.json", "{", "tokenizer: the tokenizer cannot be loaded: Expecting property"),
        ("model.safetensors", "{", "model: the model cannot be loaded: "),
        ("chat_template.jinja", "{% if %}", "tokenizer: chat template: Expected an expression"),
        ("chat_template.jinja", "{{ raise_exception('no') }}", "tokenizer: chat template: no. "),
    ],
)
def test_broken_files(
    start, make_config, tmp_path, task_dir, model_dir, tokenizer_dir, name, text, wrong
):
    copytree(model_dir, tmp_path / "model")
    copytree(tokenizer_dir, tmp_path / "tokenizer")
    described = (task_dir / "tasks.json").read_text()
    (task_dir / "tasks.json").write_text(
        described.replace('"template"', '"chat": true, "template"')
    )
    folder = tmp_path / ("model" if name == "model.safetensors" else "tokenizer")
    (folder / name).write_text(text)
    folders = {"model_dir": tmp_path / "model", "tokenizer_dir": tmp_path / "tokenizer"}
    with pytest.raises(SparseBalanceError) as caught:
        start(make_config(), tmp_path / "out", **folders)
    assert str(caught.value).startswith(f"{tmp_path}/{wrong}")
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing(start, make_config, tmp_path, model_dir):
    copytree(model_dir, tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    with pytest.raises(SparseBalanceError, match=r"cannot be loaded: .*model\.safetensors"):
        start(make_config(), tmp_path / "out", model_dir=tmp_path / "model")


def test_no_such_device(start, make_config, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    config = make_config().model_copy(update={"device": "cuda"})
    with pytest.raises(SparseBalanceError, match="device = cuda"):
        start(config, tmp_path / "out")
