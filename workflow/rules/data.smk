"""The prepared data set, and what is measured before anything is planned."""


rule prepare_data:
    input:
        config=stage_config("prepare"),
        files=DATA_FILES,
        tokenizer=TOKENIZER,
    output:
        tokens=in_run("data/tokens.bin"),
        targets=in_run("data/targets.bin"),
        index=in_run("data/index.parquet"),
        summary=in_run("data/summary.json"),
        manifest=in_run("data/manifest.json"),
    log:
        log_file("prepare_data"),
    benchmark:
        benchmark_file("prepare_data")
    params:
        out=subpath(output.index, parent=True),
        tracking=TRACKING,
        code=code_digest("sbcore.data.prepare"),
    shell:
        "sb prepare {input.files} --config {input.config} --tokenizer {input.tokenizer}"
        " --out {params.out} --tracking {params.tracking} 2>&1 | tee -i {log}"


rule profile_lengths:
    input:
        config=stage_config("profile_lengths"),
        index=in_run("data/index.parquet"),
    output:
        numbers=in_run("profile/lengths.json"),
        picture=report(
            in_run("profile/lengths.png"),
            caption="../report/lengths.rst",
            category="Profiles",
            labels={"profile": "lengths"},
        ),
        manifest=in_run("profile/lengths.manifest.json"),
    log:
        log_file("profile_lengths"),
    benchmark:
        benchmark_file("profile_lengths")
    params:
        out=subpath(output.numbers, parent=True),
        tracking=TRACKING,
        code=code_digest("sbcore.lengths.profile"),
    shell:
        "sb profile-lengths --config {input.config} --index {input.index}"
        " --out {params.out} --tracking {params.tracking} 2>&1 | tee -i {log}"


rule profile_latency:
    input:
        config=stage_config("profile_latency"),
        data=in_run("data/summary.json"),
        model=MODEL,
        measured=CONFIG.latency.table or [],
    output:
        table=in_run("profile/latency.parquet"),
        facts=in_run("profile/latency.json"),
        picture=report(
            in_run("profile/latency.png"),
            caption="../report/latency.rst",
            category="Profiles",
            labels={"profile": "latency"},
        ),
        manifest=in_run("profile/latency.manifest.json"),
    log:
        log_file("profile_latency"),
    benchmark:
        benchmark_file("profile_latency")
    threads: ALL_CORES
    resources:
        gpu=NUM_GPUS,
    params:
        data=subpath(input.data, parent=True),
        model=f"--model {MODEL}" if MODEL else "",
        out=subpath(output.table, parent=True),
        environment=COMPUTE_ENVIRONMENT,
        tracking=TRACKING,
        code=code_digest("sbcore.latency.measure"),
    shell:
        "env {params.environment} sb profile-latency --config {input.config} --data {params.data} {params.model}"
        " --out {params.out} --tracking {params.tracking} 2>&1 | tee -i {log}"
