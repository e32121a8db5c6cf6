"""Runs on a cluster: found, judged, shown, followed, stopped, retried and removed.

Judging is pure: the objects of a run become one RunStatus.
"""
