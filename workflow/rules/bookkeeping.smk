"""The pipeline's run in MLflow: opened before everything, closed after the report."""


localrules:
    open_run,
    close_run,


rule open_run:
    input:
        config=stage_config("run"),
    output:
        in_run("tracking.json"),
    log:
        log_file("open_run"),
    params:
        out=in_run(""),
    shell:
        "sb open-run --config {input.config} --out {params.out} 2>&1 | tee {log}"


rule close_run:
    input:
        config=stage_config("run"),
        tracking=in_run("tracking.json"),
        report=in_run("report/summary.json"),
    output:
        in_run("closed.json"),
    log:
        log_file("close_run"),
    params:
        run_dir=in_run(""),
    shell:
        "sb close-run --config {input.config} --run-dir {params.run_dir}"
        " --out {output} 2>&1 | tee {log}"


onerror:
    shell("sb fail-run --tracking %s" % in_run("tracking.json"))
