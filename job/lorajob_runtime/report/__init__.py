"""Where a run's events go: the console, JSON lines, the Job's progress, SwanLab.

A sink is one module and one line in registry.py. Sinks read events and decide nothing about the run.
"""
