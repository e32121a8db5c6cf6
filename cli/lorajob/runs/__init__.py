"""Runs on a cluster: their status and why it is so, and showing, following, stopping, retrying and deleting them.

Status and diagnosis are pure: the objects of a run become one RunStatus. What a new run is made of does not belong here
(`submit`), nor do the lines of its log (`logs`).
"""
