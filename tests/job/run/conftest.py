"""Runs of the real supervisor."""

from supervised_runs import folder, start, variables

__all__ = ["folder", "start", "variables"]
