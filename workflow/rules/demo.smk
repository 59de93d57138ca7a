"""Inputs of the demo, made from the seed: no download, no data set of somebody else."""


rule make_demo:
    input:
        config=stage_config("demo"),
    output:
        train=in_run("demo/train.jsonl"),
        tokenizer=directory(in_run("demo/tokenizer")),
        tasks=directory(in_run("demo/tasks")),
        manifest=in_run("demo/manifest.json"),
    log:
        log_file("make_demo"),
    benchmark:
        benchmark_file("make_demo")
    params:
        out=subpath(output.train, parent=True),
        tracking=TRACKING,
        code=code_digest("sbcore.demo.dataset"),
    shell:
        "sb make-demo --config {input.config} --out {params.out}"
        " --tracking {params.tracking} 2>&1 | tee -i {log}"


rule make_base:
    input:
        config=stage_config("base"),
        train=in_run("demo/train.jsonl"),
        tokenizer=in_run("demo/tokenizer"),
    output:
        model=directory(in_run("base")),
    log:
        log_file("make_base"),
    benchmark:
        benchmark_file("make_base")
    # One core, half a minute, or one GPU: the data are prepared beside it.
    threads: 1
    resources:
        gpu=min(1, NUM_GPUS),
    params:
        demo=subpath(input.train, parent=True),
        tracking=TRACKING,
        code=code_digest("sbcore.demo.base_model"),
    shell:
        "sb make-base --config {input.config} --demo {params.demo} --out {output.model}"
        " --tracking {params.tracking} 2>&1 | tee -i {log}"
