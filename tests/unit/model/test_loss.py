from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from sbcore.model import loss
from sbcore.model.loss import give_loss, summed_loss


class TinyModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(11, 6)
        self.lm_head = torch.nn.Linear(6, 11, bias=False)

    def model(self, *, input_ids, position_ids, use_cache, sb_call):
        return SimpleNamespace(last_hidden_state=self.embed(input_ids))


def run(num_targets):
    model = TinyModel()
    give_loss(model)
    ids = torch.arange(9)[None]
    at = torch.arange(num_targets)
    value = model(
        input_ids=ids, position_ids=ids, predict_at=at, labels=(at + 1) % 11, sb_call=None
    )
    value.backward()
    plain = TinyModel()
    logits = plain.lm_head(plain.embed(ids)[0, at])
    expected = cross_entropy(logits, (at + 1) % 11, reduction="sum")
    expected.backward()
    return (value, model), (expected, plain)


@pytest.mark.parametrize("chunk_logits", [1, 11 * 2, 2**25])
@pytest.mark.parametrize("num_targets", [0, 1, 7])
def test_chunks_add_up_to_the_plain_sum_and_its_gradients(monkeypatch, chunk_logits, num_targets):
    monkeypatch.setattr(loss, "_CHUNK_LOGITS", chunk_logits)
    (value, model), (expected, plain) = run(num_targets)
    torch.testing.assert_close(value, expected)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(("chunk_logits", "products"), [(7 * 11, 1), (6 * 11, 4), (11, 14)])
def test_no_more_logits_exist_at_once_than_a_chunk_has(monkeypatch, chunk_logits, products):
    """What is in one chunk is computed once, chunks are computed again for their gradients."""
    sizes = []

    def record(logits, labels, *, reduction):
        sizes.append(logits.numel())
        return cross_entropy(logits, labels, reduction=reduction)

    monkeypatch.setattr(loss, "_CHUNK_LOGITS", chunk_logits)
    monkeypatch.setattr(loss, "cross_entropy", record)
    run(7)
    assert max(sizes) == chunk_logits
    assert len(sizes) == products


def test_logits_are_float32_whatever_the_weights_are():
    hidden, weight = (torch.randn(n, 6).to(torch.bfloat16) for n in (5, 11))
    labels = torch.arange(5)
    found = summed_loss(hidden, weight, labels)
    assert found.dtype is torch.float32
    expected = cross_entropy((hidden @ weight.T).float(), labels, reduction="sum")
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
