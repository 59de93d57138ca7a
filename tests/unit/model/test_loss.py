from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from sbcore.model import loss
from sbcore.model.loss import give_loss


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
