"""The comparison of all variants."""


rule write_report:
    input:
        config=stage_config("report"),
        lengths=in_run("profile/lengths.json"),
        latency=in_run("profile/latency.json"),
        plans=expand(
            in_run("variants/{variant}/plan/summary.json"), variant=CONFIG.variants
        ),
        trainings=expand(
            in_run("variants/{variant}/train/summary.json"), variant=CONFIG.variants
        ),
        scores=expand(
            in_run("variants/{variant}/eval/result.json"),
            variant=CONFIG.variants if CONFIG.evaluate.tasks else [],
        ),
    output:
        page=report(
            in_run("report/index.html"),
            caption="../report/comparison.rst",
            category="Comparison",
            labels={"content": "variants side by side"},
        ),
        summary=in_run("report/summary.json"),
        manifest=in_run("report/manifest.json"),
    log:
        log_file("write_report"),
    benchmark:
        benchmark_file("write_report")
    params:
        run_dir=subpath(input.lengths, ancestor=2),
        out=subpath(output.page, parent=True),
        tracking=TRACKING,
        code=code_digest("sbcore.report.run"),
    shell:
        "sb report --config {input.config} --run-dir {params.run_dir} --out {params.out}"
        " --tracking {params.tracking} 2>&1 | tee -i {log}"
