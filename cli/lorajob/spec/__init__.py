"""Spec files on this machine: reading and writing YAML, layering files, flags and defaults, the template of `init`."""
