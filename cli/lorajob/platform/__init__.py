"""What the people who run a cluster decided for everyone's runs: found, parsed, checked, and applied to a spec.

It also holds what follows from it for a command: limits on a run, quantities, and the way to results in storage.
Kubernetes objects are not made here (`submit.manifest`).
"""
