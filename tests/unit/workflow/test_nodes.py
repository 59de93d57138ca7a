"""How training starts on one node and several; tests/workflow/test_slurm.py asks the plugin."""

import pytest

from sbcore.config.load import parse_config
from sbcore.config.schema import Config
from sbcore.errors import ConfigError
from sbcore.workflow.nodes import check_nodes, training_command, training_resources

TWO = {"num_ranks": 16, "num_nodes": 2, "device": "cuda"}


def configured(topology: dict[str, object]) -> Config:
    return parse_config({"topology": topology}, [])


def test_one_node_starts_as_before_there_were_several() -> None:
    topology = configured({"num_ranks": 8, "device": "cuda"}).topology
    assert training_command(topology) == "torchrun --standalone --nproc-per-node 8 -m sbcore.train"
    assert training_resources(topology) == {"gpu": 8}
    assert training_resources(configured({}).topology) == {"gpu": 0}


def test_several_nodes_keep_the_plugins_srun_and_its_tasks_per_gpu_away() -> None:
    topology = configured(TWO).topology
    assert training_command(topology).startswith("srun --nodes=2 --ntasks=2 --ntasks-per-node=1 ")
    asked = {"nodes": 2, "tasks": 2, "mpi": "srun"}
    assert training_resources(topology) == asked | {"gres": "gpu:8", "tasks_per_gpu": 0}
    assert training_resources(configured(TWO | {"device": "cpu"}).topology) == asked


@pytest.mark.parametrize(
    ("topology", "line"),
    [
        (TWO | {"num_nodes": 3}, "num_nodes = 3: does not divide num_ranks = 16. every node"),
        (TWO | {"device": "auto"}, "num_nodes = 2: device: auto cannot tell what to ask for"),
        (TWO | {"num_nodes": 0}, "topology.num_nodes = 0: should be greater than 0."),
    ],
)
def test_nodes_that_cannot_be_are_one_line(topology: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(topology)
    assert line in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_several_nodes_need_slurm_where_rules_run_here() -> None:
    topology = configured(TWO).topology
    with pytest.raises(ConfigError, match=r"num_nodes = 2: nodes are started by Slurm's srun"):
        check_nodes(topology, {}, local=True)
    check_nodes(topology, {}, local=False)
    check_nodes(topology, {"SLURM_JOB_ID": "1"}, local=True)
    check_nodes(configured({}).topology, {}, local=True)
