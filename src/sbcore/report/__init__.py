"""The report: what the variants of a run cost and gained, as a page, a summary and pictures."""
