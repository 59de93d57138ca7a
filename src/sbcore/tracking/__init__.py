"""Experiment tracking: one pipeline run, a child run per stage, one per variant to compare.

What a stage measures lies in its own files; tracking shows it and may fail without consequence.
"""

from sbcore.tracking.closing import close_run
from sbcore.tracking.ending import end_run, fail_run
from sbcore.tracking.opening import open_run
from sbcore.tracking.seam import NoTracker, Tracker
from sbcore.tracking.stage import stage_tracker

__all__ = ["NoTracker", "Tracker", "close_run", "end_run", "fail_run", "open_run", "stage_tracker"]
