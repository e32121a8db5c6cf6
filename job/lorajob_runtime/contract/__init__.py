"""What both sides agree on: spec, errors, paths and keys, events, Kubernetes names. Standard library only.

Nothing here opens a connection, starts a process or decides anything about a run.
"""
