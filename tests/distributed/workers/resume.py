"""Run by torchrun: a toy training that saves, dies and resumes as it is told, one line a step."""

import json
import os
import sys
from concurrent.futures import wait
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from sbcore.config.schema import Config
from sbcore.config.stages import train_stage
from sbcore.errors import SparseBalanceError
from sbcore.train.checkpoint_folder import Cursor
from sbcore.train.checkpoints import Checkpoints
from sbcore.train.complaint import complain
from sbcore.train.faults import NonFiniteCount, finite_guard
from sbcore.train.identity import run_identity
from sbcore.train.ranks import Ranks
from sbcore.train.restarts import join_ranks

BATCH, SAMPLES, WIDTH = 4, 23, 7
DEFAULTS = {
    "num_steps": 8,
    "save_every": 2,
    "dropout": 0.0,
    "width": 9,
    "order": "order",
    "die_at": None,
    "nan_at": [],
    "limit": 3,
    "break_write": None,
    "device": "cpu",
}


def samples_of(step):
    """The global batch: which samples, whatever the number of ranks."""
    return np.random.default_rng([5, step]).choice(SAMPLES, BATCH, replace=False).tolist()


class Toy:
    def __init__(self, facts, ranks):
        torch.manual_seed(1)
        layers = [
            nn.Linear(WIDTH, facts["width"]),
            nn.Dropout(facts["dropout"]),
            nn.GELU(),
            nn.Linear(facts["width"], 1, bias=False),
        ]
        self.model = nn.Sequential(*layers)
        self.model.to(ranks.device)
        for part in (self.model[0], self.model):
            fully_shard(part, mesh=ranks.mesh())
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05, fused=True)
        data = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(2))
        self.data = data.to(ranks.device)
        self.ranks, self.facts = ranks, facts
        torch.manual_seed(100 + ranks.rank)

    def step(self, step):
        mine = samples_of(step)[self.ranks.rank :: self.ranks.world_size]
        x = self.data[mine]
        loss = ((self.model(x)[:, 0] - x.sum(1)) ** 2).sum() / BATCH
        if step in self.facts["nan_at"] and self.ranks.rank == 1:
            loss = loss * float("nan")
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0).full_tensor()
        before = self.bits()
        skipped = finite_guard(self.optimizer, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        total = loss.detach().clone()
        dist.all_reduce(total)
        unchanged = torch.tensor(float(before == self.bits()), device=total.device)
        dist.all_reduce(unchanged)
        return {
            "loss": float(total),
            "norm": float(norm),
            "skipped": bool(skipped),
            "unchanged": float(unchanged) == self.ranks.world_size,
        }

    def bits(self):
        states = [t for s in self.optimizer.state.values() for t in s.values()]
        tensors = [*self.model.parameters(), *states]
        return b"".join(
            (t.to_local() if hasattr(t, "to_local") else t).detach().cpu().numpy().tobytes()
            for t in tensors
        )


def write_steps(folder, text):
    (folder / "steps.txt").write_text(text)


def run(facts, out, ranks):
    toy = Toy(facts, ranks)
    stage = train_stage(Config(), "baseline")
    checkpoints = Checkpoints(
        out / "checkpoints",
        model=toy.model,
        optimizer=toy.optimizer,
        ranks=ranks,
        identity=run_identity(stage, facts["order"], data_digest="toy", weights_digest="toy"),
        keep=2,
    )
    count, average, step = NonFiniteCount(limit=facts["limit"]), np.zeros(3), 0
    newest = checkpoints.newest()
    if newest is None:
        checkpoints.clear()
    else:
        cursor, arrays = checkpoints.load(newest, seed=stage.seed)
        step, average = cursor.step, arrays.pop("average")
        count.load(arrays)
        if ranks.rank == 0:
            assert (newest / "steps.txt").read_text() == f"{step} steps"
    first_attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
    while step < facts["num_steps"]:
        if first_attempt and step == facts["die_at"]:
            dist.barrier()  # rank 0 has written its row of the step before
            if ranks.rank == ranks.world_size - 1:
                os._exit(7)
        row = toy.step(step)
        losses = [row["loss"]] * ranks.world_size
        line = count.observe(
            step, row["norm"], losses=losses, last_good=checkpoints.last_good(step)
        )
        if not row["skipped"]:
            average = 0.9 * average + row["loss"]
        step += 1
        checkpoints.poll()
        if ranks.rank == 0:
            if line:
                sys.stderr.write(line + "\n")
            row |= {"step": step - 1, "samples": samples_of(step - 1), "average": average[0]}
            with (out / "rows.jsonl").open("a") as stream:
                stream.write(json.dumps(row | {"ranks": ranks.world_size}) + "\n")
        if step % facts["save_every"] == 0 or step == facts["num_steps"]:
            if step == facts["break_write"] and ranks.rank == 1:
                if before := checkpoints.being_written():  # which must not meet the full disk
                    wait([before])
                torch.save = partial(fail, torch.save)
            finished = facts.get("finish", False) and step == facts["num_steps"]
            cursor = Cursor(step, num_ranks=ranks.world_size, finished=finished)
            arrays = {"average": average, **count.state()}
            spent = checkpoints.save_later(
                cursor, arrays, write_files=partial(write_steps, text=f"{step} steps")
            )
            assert spent >= 0
    checkpoints.close()


def fail(save, *words, **more):
    """Fails once, as a full disk does."""
    torch.save = save
    raise OSError(28, "No space left on device")


def main():
    out, facts = Path(sys.argv[1]), DEFAULTS | json.loads(sys.argv[2])
    device = torch.device(facts["device"])
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    join_ranks("nccl" if device.type == "cuda" else "gloo")
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), device, dist.new_group(backend="gloo"))
    try:
        run(facts, out, ranks)
    except SparseBalanceError as error:
        complain(error)
        sys.exit(2)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
