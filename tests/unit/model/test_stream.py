import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, plain_logits, tiny_tokens, write_tiny_model

from sbcore.config.training import ModelConfig
from sbcore.errors import SparseBalanceError
from sbcore.model.build import fill_model, read_model_config, start_model
from sbcore.model.files import base_folder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for family in FAMILIES:
        write_tiny_model(folder / family, family)
    write_tiny_model(folder / "tied", "qwen2", tied=True)
    write_tiny_model(folder / "many", "llama", max_file="20KB")
    return folder


@pytest.fixture
def copy(sources, tmp_path):
    """A directory to spoil."""
    return shutil.copytree(sources / "llama", tmp_path / "model")


def read(folder):
    model = start_model(read_model_config(folder), ModelConfig())
    fill_model(model, folder, device=CPU, seed=0)
    return model


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", [*FAMILIES, "tied", "many"])
def test_a_streamed_model_answers_as_the_librarys(sources, name):
    model = read(sources / name)
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        logits = model.eval()(tiny_tokens(), use_cache=False).logits
    assert torch.equal(logits, plain_logits(sources / name))


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ],
    ids=["yarn", "llama3"],
)
def test_rotary_frequencies_are_those_of_the_configuration(copy, rope):
    unscaled = plain_logits(copy)
    path = copy / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"rope_parameters": rope | {"rope_theta": 500.0}}))
    model = read(copy)
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        logits = model.eval()(tiny_tokens(), use_cache=False).logits
    assert torch.equal(logits, plain_logits(copy))
    assert not torch.allclose(logits, unscaled)


def test_what_older_directories_hold_besides_is_left(sources, tmp_path):
    folder = shutil.copytree(sources / "tied", tmp_path / "model")
    more = {
        "lm_head.weight": torch.zeros(101, 36),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(6),
    }
    rewrite(folder, lambda weights: weights.update(more))
    model = read(folder)
    assert model.lm_head.weight.abs().min() > 0


def test_a_missing_weight_is_named(copy):
    rewrite(copy, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(
        SparseBalanceError, match=r"missing: model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        read(copy)


def test_an_unexpected_weight_is_named(copy):
    rewrite(copy, lambda weights: weights.update(extra=torch.zeros(2)))
    with pytest.raises(SparseBalanceError, match="that the model does not have: extra"):
        read(copy)


def test_many_missing_weights_are_counted(copy):
    rewrite(copy, lambda weights: [weights.pop(n) for n in list(weights) if "layers.0" in n])
    with pytest.raises(SparseBalanceError, match=r"and \d+ more") as caught:
        read(copy)
    assert "\n" not in str(caught.value)


def test_another_shape_is_refused_with_both(copy):
    rewrite(copy, lambda weights: weights.update({"model.norm.weight": torch.zeros(35)}))
    with pytest.raises(
        SparseBalanceError, match=r"norm\.weight: shape \[35\], config\.json says \[36\]"
    ):
        read(copy)


def test_quantised_weights_are_refused(copy):
    whole = torch.zeros(36, dtype=torch.int8)
    rewrite(copy, lambda weights: weights.update({"model.norm.weight": whole}))
    with pytest.raises(SparseBalanceError, match=r"norm\.weight: type I8: quantised"):
        read(copy)


def test_a_torn_file_is_named(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SparseBalanceError, match=r"model\.safetensors: not a whole safetensors"):
        read(copy)


def test_a_directory_without_safetensors_says_what_to_do(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(SparseBalanceError, match=r"no model\.safetensors .* convert the weights"):
        read(copy)


def test_a_file_that_the_index_names_and_the_directory_lacks_is_named(sources, tmp_path):
    folder = shutil.copytree(sources / "many", tmp_path / "model")
    first = sorted(folder.glob("*.safetensors"))[0]
    first.unlink()
    with pytest.raises(SparseBalanceError, match=f"{first.name} not in the directory"):
        read(folder)


def test_a_sliding_window_is_refused(copy):
    path = copy / "config.json"
    config = json.loads(path.read_text()) | {"model_type": "qwen2", "layer_types": None}
    more = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    path.write_text(json.dumps(config | more))
    with pytest.raises(SparseBalanceError, match=r"layer_types = .*sliding_attention"):
        read(copy)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", r"config\.json: not the configuration of a model"),
        ('{"model_type": "llama", "hidden_size": "wide"}', r"config\.json: .*hidden_size.*wide"),
        ('{"model_type": "gpt2"}', "model_type = gpt2: not supported"),
        ("{", r"config\.json: not the configuration of a model\. copy it again\."),
        (b"\x8c\x00", r"config\.json: not the configuration of a model\. copy it again\."),
    ],
)
def test_a_broken_configuration_is_one_line(copy, text, words):
    (copy / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SparseBalanceError, match=words) as caught:
        read(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "nonsense"}, r"config\.json: 'nonsense' is unknown to transformers"),
        (
            {"rope_parameters": {"rope_type": "nonsense", "rope_theta": 1e4}},
            r"config\.json: 'nonsense' is unknown to transformers",
        ),
    ],
)
def test_a_word_that_the_library_does_not_know_is_one_line(copy, change, words):
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SparseBalanceError, match=words):
        read(copy)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "index.json: not an index of weights. copy it again."),
        ("{}", "index.json: weight_map: missing or empty"),
        ('{"weight_map": {"a": 3}}', "index.json: a: no file's name"),
    ],
)
def test_a_broken_index_is_one_line(sources, tmp_path, text, words):
    folder = shutil.copytree(sources / "many", tmp_path / "model")
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(SparseBalanceError, match=words):
        read(folder)


def test_adapters_that_name_no_base_are_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(SparseBalanceError, match="base_model_name_or_path = None: no directory"):
        base_folder(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(SparseBalanceError, match=f"^{tmp_path}: not a model directory"):
        read(tmp_path)
