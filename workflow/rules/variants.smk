"""What each variant does: its plan, its training, its scores."""

from sbcore.workflow.nodes import training_command, training_resources


include: "tasks.smk"


rule plan_variant:
    input:
        config=stage_config("plan.{variant}"),
        index=in_run("data/index.parquet"),
        latency=in_run("profile/latency.parquet"),
    output:
        plan=in_run("variants/{variant}/plan/plan.parquet"),
        summary=in_run("variants/{variant}/plan/summary.json"),
        manifest=in_run("variants/{variant}/plan/manifest.json"),
    log:
        log_file("plan_variant.{variant}"),
    benchmark:
        benchmark_file("plan_variant.{variant}")
    params:
        latency=subpath(input.latency, parent=True),
        out=subpath(output.plan, parent=True),
        tracking=TRACKING,
        code=code_digest("sbcore.plan.planner"),
    shell:
        "sb plan --config {input.config} --index {input.index} --latency {params.latency}"
        " --out {params.out} --tracking {params.tracking} 2>&1 | tee -i {log}"


# metrics.jsonl, the ledger and checkpoints/ lie beside the outputs but are not among them:
# Snakemake deletes a rule's outputs before it runs again, and an interrupted training goes on from
# them. The trainer itself refuses what belongs to another configuration.
rule train_variant:
    input:
        config=stage_config("train.{variant}"),
        tokens=in_run("data/tokens.bin"),
        targets=in_run("data/targets.bin"),
        plan=in_run("variants/{variant}/plan/plan.parquet"),
        latency=in_run("profile/latency.parquet"),
        model=MODEL,
    output:
        model=directory(in_run("variants/{variant}/train/model")),
        summary=in_run("variants/{variant}/train/summary.json"),
        manifest=in_run("variants/{variant}/train/manifest.json"),
    log:
        log_file("train_variant.{variant}"),
    benchmark:
        benchmark_file("train_variant.{variant}")
    threads: ALL_CORES
    resources:
        **training_resources(CONFIG.topology),
    params:
        data=subpath(input.tokens, parent=True),
        plan=subpath(input.plan, parent=True),
        latency=subpath(input.latency, parent=True),
        model=f"--model {MODEL}" if MODEL else "",
        out=subpath(output.summary, parent=True),
        start=training_command(CONFIG.topology),
        environment=COMPUTE_ENVIRONMENT,
        tracking=TRACKING,
        code=code_digest("sbcore.train.__main__"),
    # Inputs are checked before any rank starts: torchrun wraps a rank's error in a traceback.
    shell:
        "words='--config {input.config} --data {params.data} --plan {params.plan}"
        " --latency {params.latency} {params.model} --out {params.out}"
        " --tracking {params.tracking} --resume';"
        " (python -m sbcore.train.inputs $words && env {params.environment} {params.start}"
        " $words) 2>&1 | tee -i {log}"


rule evaluate_variant:
    input:
        config=stage_config("evaluate.{variant}"),
        model=in_run("variants/{variant}/train/model"),
        tokenizer=TOKENIZER,
        tasks=[*OTHER_TASKS, *MADE_TASKS],
    output:
        result=in_run("variants/{variant}/eval/result.json"),
        manifest=in_run("variants/{variant}/eval/manifest.json"),
    log:
        log_file("evaluate_variant.{variant}"),
    benchmark:
        benchmark_file("evaluate_variant.{variant}")
    # GPUs hold one model at a time: two evaluations, each on all of them, may not fit beside each other.
    threads: 1 if CONFIG.topology.device == "cpu" else ALL_CORES
    resources:
        gpu=NUM_GPUS,
    params:
        sb=EVALUATE,
        tasks=lambda _, input: [f"--tasks {folder}" for folder in input.tasks],
        out=subpath(output.result, parent=True),
        tracking=TRACKING,
        code=code_digest("sbcore.evaluate.run"),
    shell:
        "{params.sb} evaluate --config {input.config} --model {input.model}"
        " --tokenizer {input.tokenizer} {params.tasks} --out {params.out}"
        " --tracking {params.tracking} 2>&1 | tee -i {log}"
