"""The pipeline's run in MLflow: opened before everything, closed after the report.

Opening is no rule, since another configuration opens another run: as an input of all stages it
would rerun them all, and as an ancient() one it hides every other reason to rerun (Snakemake 9.27
then stops at the opening rule, silently). docs/decisions/tracking-run.md has the test.
"""

import os

from sbcore.workflow.nodes import check_nodes


localrules:
    close_run,


onstart:
    try:
        check_nodes(CONFIG.topology, os.environ, local=workflow.local_exec)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    shell("sb open-run --config %s --out %s" % (stage_config("run"), in_run("")))


onerror:
    shell("sb fail-run --tracking %s" % TRACKING)


# Who asks for some files alone never comes to close_run.
onsuccess:
    shell("sb end-run --tracking %s" % TRACKING)


rule close_run:
    input:
        config=stage_config("run"),
        summary=in_run("report/summary.json"),
    output:
        in_run("closed.json"),
    log:
        log_file("close_run"),
    params:
        run_dir=subpath(output[0], parent=True),
    shell:
        "sb close-run --config {input.config} --run-dir {params.run_dir}"
        " --out {output} 2>&1 | tee -i {log}"
