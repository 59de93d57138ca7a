"""Run by torchrun: real directories streamed in, trained two steps, written out again.

Words: a json file with tokens and cases, the folder to write. Rank 0 leaves logits, each rank what
it read.
"""

import json
import sys
from pathlib import Path

import safetensors
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from sbcore.attention.call import AttentionCall
from sbcore.config.training import ModelConfig
from sbcore.model.build import fill_model, read_model_config, start_model
from sbcore.model.export import export_model
from sbcore.model.layers import decoder_layers
from sbcore.model.own_part import held_here
from sbcore.model.recompute import Recompute

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Asked:
    """Stands for safetensors' slice and keeps the sizes asked of it."""

    def __init__(self, real, sizes):
        self.real, self.sizes = real, sizes

    def __getattr__(self, name):
        return getattr(self.real, name)

    def __getitem__(self, part):
        values = self.real[part]
        self.sizes.append(values.numel())
        return values


class Watched:
    """Stands for an open safetensors file."""

    def __init__(self, real, sizes):
        self.real, self.sizes = real, sizes

    def __getattr__(self, name):
        return getattr(self.real, name)

    def get_tensor(self, name):
        raise AssertionError(f"{name}: the whole tensor was asked for")

    def get_slice(self, name):
        return Asked(self.real.get_slice(name), self.sizes)

    def __enter__(self):
        self.real.__enter__()
        return self

    def __exit__(self, *error):
        return self.real.__exit__(*error)


def watch_files(sizes):
    real = safetensors.safe_open
    safetensors.safe_open = lambda *words, **named: Watched(real(*words, **named), sizes)


def logits_of(model, ids):
    tokens = ids.shape[1]
    call = AttentionCall(torch.tensor([0, tokens], dtype=torch.int32), (tokens,), 16, "torch", None)
    positions = torch.arange(tokens)[None]
    return model(input_ids=ids, position_ids=positions, use_cache=False, sb_call=call).logits


def train(model, ids):
    """Trains two steps; returns the losses."""
    torch.manual_seed(dist.get_rank())
    trained = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for _ in range(2):
        logits = logits_of(model, ids).float()[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
        loss.backward()  # the same on every rank, so their mean is it
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


def run(case, ids, out, sizes):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    source, config = Path(case["source"]), ModelConfig.model_validate(case["model"])
    model = start_model(read_model_config(source), config)
    assert all(weight.is_meta for weight in model.parameters())
    recompute = Recompute(decoder_layers(model), case["recompute"], above_tokens=0)
    policy = MixedPrecisionPolicy(
        param_dtype=DTYPES[config.dtype], reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for part in (*decoder_layers(model), model):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    sizes.clear()
    fill_model(model, source, device=torch.device("cpu"), seed=0)
    facts = {
        "asked": list(sizes),
        "held": sum(held_here(w).numel() for w in model.parameters()),
        "whole": sum(w.numel() for w in model.parameters()),
        "trained_types": sorted({str(w.dtype) for w in model.parameters() if w.requires_grad}),
        "frozen_types": sorted({str(w.dtype) for w in model.parameters() if not w.requires_grad}),
    }
    with torch.no_grad():
        before = logits_of(model.eval(), ids)
    model.train()
    recompute.prepare(ids.numel())
    facts["losses"] = train(model, ids)
    with torch.no_grad():
        after = logits_of(model.eval(), ids)
    export_model(model, out / "model", config=config, source=source, rank=dist.get_rank())
    if dist.get_rank() == 0:
        torch.save({"before": before, "after": after}, out / "logits.pt")
    (out / f"rank{dist.get_rank()}.json").write_text(json.dumps(facts))


def main() -> None:
    dist.init_process_group("gloo")
    words, out, sizes = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), []
    watch_files(sizes)
    for name, case in words["cases"].items():
        (out / name).mkdir(exist_ok=True)
        run(case, torch.tensor(words["tokens"]), out / name, sizes)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
