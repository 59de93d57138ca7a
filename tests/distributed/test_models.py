import json

import pytest
import torch
from tiny_models import FAMILIES, plain_logits, tiny_tokens, write_tiny_model

pytestmark = pytest.mark.distributed

LORA = {"rank": 3, "alpha": 6, "dropout": 0.0}
WAYS = {
    "full": {"model": {}, "recompute": "none"},
    "merged": {"model": {"lora": LORA}, "recompute": "full"},
    "adapter": {"model": {"lora": LORA | {"save": "adapter"}}, "recompute": "none"},
}
CASES = [f"{family}-{way}" for family in FAMILIES for way in WAYS]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for family in FAMILIES:
        # Qwen2 tied in one file, Qwen3 in many, Llama's own head in one.
        write_tiny_model(
            folder / family,
            family,
            tied=family == "qwen2",
            max_file="20KB" if family == "qwen3" else "5GB",
        )
    assert (folder / "qwen3/model.safetensors.index.json").is_file()
    write_tiny_model(folder / "bf16", "qwen2", dtype=torch.bfloat16, tied=True)
    return folder


def run_on(num_ranks, sources, forked, workers, out):
    cases = {
        f"{family}-{way}": {"source": str(sources / family), **facts}
        for family in FAMILIES
        for way, facts in WAYS.items()
    }
    cases["bf16"] = {
        "source": str(sources / "bf16"),
        "model": {"dtype": "bfloat16", "lora": LORA | {"dropout": 0.5}},
        "recompute": "full",
    }
    words = {"tokens": tiny_tokens().tolist(), "cases": cases}
    (out / "cases.json").write_text(json.dumps(words))
    forked(workers / "models.py", out / "cases.json", out, num_ranks=num_ranks)
    return num_ranks, out


@pytest.fixture(scope="module")
def alone(sources, forked, workers, tmp_path_factory):
    return run_on(1, sources, forked, workers, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def together(sources, forked, workers, tmp_path_factory):
    return run_on(2, sources, forked, workers, tmp_path_factory.mktemp("together"))


@pytest.fixture(scope="module", params=["alone", "together"])
def done(request):
    return request.getfixturevalue(request.param)


def facts_of(out, case):
    return [json.loads(path.read_text()) for path in sorted((out / case).glob("rank*.json"))]


def logits_of(out, case):
    return torch.load(out / case / "logits.pt")


@pytest.mark.parametrize("case", CASES)
def test_streamed_weights_are_those_that_the_library_reads(done, sources, case):
    _, out = done
    expected = plain_logits(sources / case.split("-")[0])
    torch.testing.assert_close(logits_of(out, case)["before"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if not case.endswith("adapter")])
def test_the_library_loads_what_was_trained_with_equal_logits(done, case):
    _, out = done
    saved = plain_logits(out / case / "model")
    logits = logits_of(out, case)
    torch.testing.assert_close(saved, logits["after"], rtol=1e-4, atol=1e-5)
    assert (saved - logits["before"]).abs().max() > 1e-2, "training changed nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_adapters_beside_their_base(done, sources, family):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, out = done
    folder = out / f"{family}-adapter" / "model"
    assert not (folder / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(sources / family, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder).eval()
    with torch.no_grad():
        logits = model(tiny_tokens(), use_cache=False).logits
    expected = logits_of(out, f"{family}-adapter")["after"]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_rank_reads_what_it_holds_and_never_a_whole_model(done, case):
    num_ranks, out = done
    for facts in facts_of(out, case):
        largest = max(facts["asked"])
        assert sum(facts["asked"]) <= facts["held"]
        assert facts["held"] <= facts["whole"] / num_ranks * 1.1
        assert largest <= 101 * 36 / num_ranks * 1.1  # the embedding, the largest of all


def test_any_number_of_ranks_trains_the_same(alone, together):
    for case in CASES:
        losses = [facts_of(out, case)[0]["losses"] for _, out in (alone, together)]
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


def test_adapters_are_float32_beside_a_frozen_bfloat16_base(done):
    _, out = done
    for facts in facts_of(out, "bf16"):
        assert facts["trained_types"] == ["torch.float32"]
        assert facts["frozen_types"] == ["torch.bfloat16"]


def test_the_saved_type_is_the_compute_type_unless_told(done):
    _, out = done
    assert json.loads((out / "bf16/model/config.json").read_text())["dtype"] == "bfloat16"
    saved = plain_logits(out / "bf16/model")
    after = logits_of(out, "bf16")["after"].float()
    torch.testing.assert_close(saved, after, rtol=0.05, atol=0.15)
