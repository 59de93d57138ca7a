"""The pipeline: data -> profiles -> plans -> training -> evaluation -> report, for each variant.

Reads a configuration (config/demo.yaml unless --configfile names another) and plans a fixed graph:
variants come from the configuration, nothing is discovered at run time. Each stage is a command
that can be run alone; `sb --help` lists them.
"""

from snakemake.utils import min_version

min_version("9.0")


if not workflow.configfiles:

    configfile: "config/demo.yaml"


report: "workflow/report/pipeline.rst"


include: "workflow/rules/paths.smk"
include: "workflow/rules/bookkeeping.smk"


if not CONFIG.data.files:

    include: "workflow/rules/demo.smk"


include: "workflow/rules/data.smk"
include: "workflow/rules/variants.smk"
include: "workflow/rules/report.smk"


wildcard_constraints:
    variant="|".join(CONFIG.variants),


rule all:
    default_target: True
    input:
        in_run("report/index.html"),
        in_run("closed.json"),
        # What stages read, too: an earlier report hides that one, run again by force, was stopped.
        rules.write_report.input,
        rules.prepare_data.output.summary,
        MODEL,
        TOKENIZER,
        OTHER_TASKS,
        MADE_TASKS,
