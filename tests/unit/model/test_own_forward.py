import pytest
import torch

from sbcore.attention import AttentionCall, FixedBudgets
from sbcore.config.lora import LoraConfig
from sbcore.model.build import build_model
from sbcore.model.feed_forward import gated_feed_forward
from sbcore.model.joint_linear import joint_linear
from sbcore.model.lora import add_lora
from sbcore.model.loss import give_loss
from sbcore.model.own_forward import give_own_forward, suits_own_forward

LENGTHS = (70, 33, 1)
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 97}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
YARN |= {"original_max_position_embeddings": 64}
FAMILIES = {
    "qwen2": {},
    "qwen3": {},
    "qwen3 with biases": {"attention_bias": True},
    "llama": {},
    "llama with biases": {"attention_bias": True},
    "llama with scaled positions": {"rope_parameters": YARN},
}


def small_model(family, dtype=torch.float32, **more):
    from transformers import LlamaConfig, Qwen2Config, Qwen3Config

    make = {"qwen2": Qwen2Config, "llama": LlamaConfig, "qwen3": Qwen3Config}[family.split()[0]]
    config = make(**(SIZES | HEADS | FAMILIES[family] | more))
    model = build_model(config, seed=0, dtype=dtype)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or "bias" in name:  # ones and zeros would hide them
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)))
    return model.train()


def loss_and_gradients(
    model, top_k=2, *, lengths=LENGTHS, block_size=16, backend="torch", known=True
):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 97, (1, sum(lengths)), generator=generator)
    at = torch.arange(0, sum(lengths) - 1, 3)
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    device = model.device
    budgets = FixedBudgets.of(top_k, len(lengths), device)
    budgets = budgets if known else FixedBudgets(budgets.value)
    give_loss(model)
    loss = model(
        input_ids=ids.to(device),
        position_ids=torch.cat([torch.arange(n) for n in lengths])[None].to(device),
        predict_at=at.to(device),
        labels=ids[0, at + 1].to(device),
        sb_call=AttentionCall(ends.to(device), lengths, block_size, backend, budgets),
    )
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("top_k", [2, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_all_gradients_are_the_library_layers(family, top_k):
    library, own = (small_model(family, torch.float64) for _ in range(2))
    assert suits_own_forward(own)
    give_own_forward(own)
    expected, theirs = loss_and_gradients(library, top_k)
    value, ours = loss_and_gradients(own, top_k)
    # The library's norm computes in float32 whatever it is given.
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient.norm() > 0 or name.endswith("k_proj.bias"), name
        error = (ours[name] - gradient).norm() / library_scale(theirs, name)
        assert error < 1e-5, (name, float(error))


def library_scale(gradients, name):
    """A bias of keys has next to no gradient: without positions it moves all scores alike."""
    return gradients[name].norm() + 1e-3 * gradients["model.norm.weight"].norm()


def relative_error(gradients, exact):
    difference = sum((gradients[n].cpu().double() - exact[n]).square().sum() for n in exact)
    return float((difference / sum(g.square().sum() for g in exact.values())).sqrt())


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_in_bfloat16_it_is_no_further_from_the_truth_than_the_library(family):
    exact = loss_and_gradients(small_model(family, torch.float64))[1]
    errors = {}
    for way in ("library", "own"):
        model = small_model(family).to(torch.bfloat16)
        if way == "own":
            give_own_forward(model)
        gradients = loss_and_gradients(model)[1]
        difference = sum((gradients[n].double() - exact[n]).square().sum() for n in exact)
        errors[way] = float(
            difference.sqrt() / sum(g.square().sum() for g in exact.values()).sqrt()
        )
    assert errors["own"] < 1.2 * errors["library"] < 0.1, errors


@pytest.mark.gpu
@pytest.mark.parametrize("lengths", [(700,), (300, 40), (64,) * 9])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_on_a_gpu_it_is_no_further_from_the_truth_than_the_library(family, known, lengths):
    # Fused norms and the kernels, which take queries and keys with gaps, are only there: dense ones
    # where the host knows that all blocks are chosen, ours where it does not.
    case = {"lengths": lengths, "block_size": 64, "known": known}
    exact = loss_and_gradients(small_model(family, torch.float64, head_dim=64), 16, **case)[1]
    errors = {}
    for way in ("library", "own"):
        model = small_model(family, head_dim=64).to("cuda", torch.bfloat16)
        if way == "own":
            give_own_forward(model)
        gradients = loss_and_gradients(model, 16, **case, backend="triton")[1]
        errors[way] = relative_error(gradients, exact)
    assert errors["own"] < 1.2 * errors["library"] < 0.1, errors


def kept_values(run, x, weights):
    """Values that the backward pass of a function of x is kept waiting with, weights apart."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, or its place is taken again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = run(x)
    out.sum().backward()
    places = {weight.untyped_storage().data_ptr() for weight in weights}
    return sum(tensor.numel() for at, tensor in kept.items() if at not in places)


def test_the_feed_forward_layer_keeps_its_products_alone():
    mlp = small_model("qwen2").model.layers[0].mlp
    weights = [mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight]
    x = torch.randn(10, 32, requires_grad=True)
    assert kept_values(mlp, x, weights) == 10 * (32 + 4 * 48)
    own = kept_values(lambda x: gated_feed_forward(x, *weights), x, weights)
    assert own == 10 * (32 + 2 * 48)


ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def adapted_model(family, targets, *, dropout=0.0, seed=3, **more):
    """A model in float64 whose adapters do something: peft begins with B = 0."""
    model = small_model(family, **more)
    add_lora(model, LoraConfig(rank=4, alpha=12, dropout=dropout, targets=list(targets)))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            filled = 0.1 * torch.randn(weight.shape, generator=generator)
            owner = model.get_submodule(name.removesuffix(".weight"))
            owner.weight = torch.nn.Parameter(filled)
    return model.double()


@pytest.mark.parametrize("targets", [ALL, ("q_proj", "v_proj"), ("o_proj",), ("up_proj",), ALL[4:]])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama with biases"])
def test_with_adapters_loss_and_gradients_are_those_of_peft(family, targets):
    library, own = (adapted_model(family, targets) for _ in range(2))
    assert suits_own_forward(own)
    give_own_forward(own)
    expected, theirs = loss_and_gradients(library)
    value, ours = loss_and_gradients(own)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    assert {n for n, g in ours.items() if g is not None} == {n for n in theirs if "lora_" in n}
    for name in [name for name in theirs if "lora_" in name]:
        error = (ours[name] - theirs[name]).norm() / theirs[name].norm()
        assert theirs[name].norm() > 0, name
        assert error < 1e-5, (name, float(error))


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_with_adapters_on_a_gpu_it_is_no_further_from_the_truth_than_peft(family):
    # One model's error says little: rounding alone moves it by a factor of two either way.
    case = {"lengths": (300, 40), "block_size": 64, "known": False}
    ratios = []
    for seed in range(8):
        made = {"seed": seed, "head_dim": 64}
        exact = loss_and_gradients(adapted_model(family, ALL, **made), 16, **case)[1]
        exact = {name: gradient for name, gradient in exact.items() if gradient is not None}
        errors = []
        for way in ("library", "own"):
            model = adapted_model(family, ALL, **made).to("cuda", torch.bfloat16)
            if way == "own":
                give_own_forward(model)
            gradients = loss_and_gradients(model, 16, **case, backend="triton")[1]
            errors.append(relative_error(gradients, exact))
        ratios.append(errors[1] / errors[0])
    assert float(torch.tensor(ratios).log().mean().exp()) < 1.5, ratios


def test_with_adapters_dropout_is_drawn_from_torchs_generator():
    losses = {}
    for seed, dropout in ((1, 0.5), (1, 0.5), (2, 0.5), (1, 0.0)):
        model = adapted_model("qwen2", ALL, dropout=dropout)
        give_own_forward(model)
        torch.manual_seed(seed)
        losses.setdefault((seed, dropout), set()).add(float(loss_and_gradients(model)[0]))
    assert all(len(found) == 1 for found in losses.values())
    assert len(set.union(*losses.values())) == 3


def test_frozen_projections_keep_no_input_for_gradients_that_nobody_wants():
    attention = small_model("qwen2").model.layers[0].self_attn
    layers = [attention.q_proj, attention.k_proj, attention.v_proj]
    weights = [part for layer in layers for part in layer.parameters()]
    x = torch.randn(10, 32, requires_grad=True)
    assert kept_values(lambda x: joint_linear(x, layers), x, weights) == 10 * 32
    for weight in weights:
        weight.requires_grad_(False)
    assert kept_values(lambda x: joint_linear(x, layers), x, weights) == 0


FROZEN = ("q_proj", "k_proj", "gate_proj", "down_proj")


@pytest.mark.parametrize("frozen", [FROZEN[:1], FROZEN[1:2], FROZEN[2:3], FROZEN[3:], FROZEN])
def test_a_frozen_weight_takes_no_gradient_from_those_beside_it(frozen):
    library, own = (small_model("qwen2", torch.float64) for _ in range(2))
    for model in (library, own):
        for name, weight in model.named_parameters():
            weight.requires_grad_(not any(part in name for part in frozen))
    give_own_forward(own)
    theirs, ours = (loss_and_gradients(model)[1] for model in (library, own))
    assert {n for n, g in ours.items() if g is None} == {n for n, g in theirs.items() if g is None}
    for name, gradient in theirs.items():
        if gradient is not None:
            error = (ours[name] - gradient).norm() / library_scale(theirs, name)
            assert error < 1e-5, (name, float(error))


def test_other_activations_and_biases_stay_with_the_library():
    assert not suits_own_forward(small_model("llama", mlp_bias=True))
    assert not suits_own_forward(small_model("llama", hidden_act="gelu"))
    mixed = small_model("qwen2")
    mixed.model.layers[1].self_attn.k_proj.bias = None
    assert not suits_own_forward(mixed)
