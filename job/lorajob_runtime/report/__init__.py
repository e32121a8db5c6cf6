"""Where a run's events go: the console, JSON lines, the Job's progress, SwanLab.

Sinks read events and decide nothing about the run.
"""
