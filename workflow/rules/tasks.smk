"""Evaluation tasks that are made for this tokenizer, or taken over from benchmarks."""

# One folder for each set that the configuration asks for, under the names of its keys.
MADE_TASKS = [
    in_run(f"tasks/{name}")
    for name in CONFIG.evaluate.made_sets
    if CONFIG.evaluate.tasks
]
# The demo's tasks are there with the demo's data only.
OTHER_TASKS = [TASKS] if CONFIG.evaluate.longbench or not CONFIG.data.files else []
# Several GPUs share the prompts.
EVALUATE = (
    f"torchrun --standalone --nproc-per-node {NUM_GPUS} -m sbcore.cli"
    if NUM_GPUS > 1
    else "sb"
)


if MADE_TASKS:

    rule make_tasks:
        input:
            config=stage_config("tasks"),
            tokenizer=TOKENIZER,
        output:
            sets=[directory(folder) for folder in MADE_TASKS],
            manifest=in_run("tasks/manifest.json"),
        log:
            log_file("make_tasks"),
        benchmark:
            benchmark_file("make_tasks")
        params:
            out=subpath(output.manifest, parent=True),
            tracking=TRACKING,
            code=code_digest("sbcore.evaluate.make_tasks"),
        shell:
            "sb make-tasks --config {input.config} --tokenizer {input.tokenizer}"
            " --out {params.out} --tracking {params.tracking} 2>&1 | tee -i {log}"
