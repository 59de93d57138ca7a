"""How training starts on one host or several, and what a scheduler is asked for.

Snakemake's Slurm plugin (2.8.0) makes tasks of what reads like GPUs, and starts its own job step
around a rule; docs/decisions/several-nodes.md has both traps.
"""

from collections.abc import Mapping

from sbcore.config.compute import TopologyConfig
from sbcore.errors import ConfigError


def gpus_per_node(topology: TopologyConfig) -> int:
    """Returns the GPUs to ask for on each host: none unless they are asked for by name."""
    return topology.ranks_per_node if topology.device == "cuda" else 0


def training_command(topology: TopologyConfig) -> str:
    """Returns what stands before the trainer's words: torchrun, or srun of one on each node."""
    if topology.num_nodes == 1:
        return f"torchrun --standalone --nproc-per-node {topology.num_ranks} -m sbcore.train"
    nodes = topology.num_nodes
    return (
        f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --cpu-bind=none"
        " --kill-on-bad-exit=1 python -m sbcore.train.node"
    )


def training_resources(topology: TopologyConfig) -> dict[str, int | str]:
    """Returns the training rule's resources in the words of Snakemake's Slurm plugin.

    Of several nodes only: ``mpi`` keeps the plugin's own srun away, ``tasks`` is one per node,
    ``tasks_per_gpu`` keeps that from being read as tasks per GPU, ``gres`` counts for each node.
    """
    num_gpus, nodes = gpus_per_node(topology), topology.num_nodes
    if nodes == 1:
        return {"gpu": num_gpus}
    asked: dict[str, int | str] = {"nodes": nodes, "tasks": nodes, "mpi": "srun"}
    return asked | ({"gres": f"gpu:{num_gpus}", "tasks_per_gpu": 0} if num_gpus else {})


def check_nodes(topology: TopologyConfig, environment: Mapping[str, str], *, local: bool) -> None:
    """Raises ConfigError where several nodes are configured and rules run on this machine.

    Inside a Slurm allocation they may: srun finds its nodes there.
    """
    if topology.num_nodes > 1 and local and "SLURM_JOB_ID" not in environment:
        raise ConfigError(
            f"configuration: topology.num_nodes = {topology.num_nodes}: nodes are started by "
            "Slurm's srun, and this is no Slurm job. use --workflow-profile profiles/slurm, or "
            "start torchrun on each node: docs/how-to/multi-gpu.md."
        )
