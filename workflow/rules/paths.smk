"""The configuration, checked and frozen, and every path that rules share."""

import sys
from pathlib import Path

from sbcore.beforehand.check import check_beforehand
from sbcore.config.load import parse_config
from sbcore.errors import ConfigError
from sbcore.workflow.code import code_digest
from sbcore.workflow.freeze import freeze_stages
from sbcore.workflow.nodes import gpus_per_node


def as_typed(file):
    """Returns a path as the user knows it: Snakemake makes configuration paths absolute."""
    path, here = Path(file), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def read_config():
    """Returns the configuration; ends with a line per mistake and exit code 2, no traceback."""
    try:
        files = [as_typed(file) for file in workflow.configfiles]
        found = parse_config(config, files)
        check_beforehand(found, files)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    return found


CONFIG = read_config()


def in_run(path):
    """Returns a path below the run's results."""
    return f"results/{CONFIG.run}/{path}"


def stage_config(name):
    """Returns the file that holds a stage's part of the configuration."""
    return in_run(f"config/{name}.json")


# Written here, not by a rule: a rule that rewrites one of them would rerun what reads any of them.
try:
    freeze_stages(CONFIG, Path(in_run("config")))
except OSError as error:
    sys.stderr.write(
        f"{error.filename}: {error.strerror}. check the path, its rights and the disk.\n"
    )
    sys.exit(2)


# `tee -i`: Ctrl-C reaches tee, too, and how a stage ended would be neither shown nor kept.
def log_file(name):
    """Returns a rule's log; what it holds is shown as well."""
    return in_run(f"logs/{name}.log")


def benchmark_file(name):
    """Returns a rule's record of time and memory."""
    return in_run(f"benchmarks/{name}.tsv")


# The pipeline's run in MLflow. It is a parameter, not an input: see bookkeeping.smk.
TRACKING = in_run("tracking.json")
# Sources of one data set: the configured files, or the demo's.
DATA_FILES = CONFIG.data.files or [in_run("demo/train.jsonl")]
# The model that every variant starts from; none means random weights of the configured shape.
MODEL = CONFIG.model.path or ([] if CONFIG.data.files else in_run("base"))
TOKENIZER = CONFIG.data.tokenizer or (
    MODEL if CONFIG.data.files else in_run("demo/tokenizer")
)
TASKS = CONFIG.evaluate.longbench or in_run("demo/tasks")
# Timings lie when something else runs beside them; a cluster job has its node anyway.
ALL_CORES = workflow.cores or 1
# The latency profile and the training run alike, or predictions lie. glibc gives freed memory back to
# the system and asks for it again: keeping it makes small attention on a CPU 1.2-1.7 times as fast.
COMPUTE_ENVIRONMENT = (
    f"OMP_NUM_THREADS={CONFIG.train.threads_per_rank}"
    " MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592"
)
# Of one host: what is not trained, runs on one.
NUM_GPUS = gpus_per_node(CONFIG.topology)
