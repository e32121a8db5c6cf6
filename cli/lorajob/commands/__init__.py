"""One module a command, each with `command`; commands of a group are in a folder of its name.

A command reads its flags, calls one thing and prints. What it calls, and anything about storage, models or Kubernetes
objects, belongs to the rooms below.
"""
