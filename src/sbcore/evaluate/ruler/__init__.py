"""RULER (arXiv 2404.06654): synthetic tasks of any length, worded anew, under the usual names.

The wordings are this project's own, so scores compare between models asked here, not with
published ones; for those, import the official files (`sbcore.evaluate.ruler.official`).
"""
