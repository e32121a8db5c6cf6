"""Runs a run from start to end: the supervisor, its training processes, the other nodes, and the pod around them.

It decides and calls; how data is read, weights are fetched or a step is made is known in the folders below it.
"""
