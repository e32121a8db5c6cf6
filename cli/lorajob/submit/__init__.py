"""From a resolved spec to a run on a cluster: the dataset, the preview, the manifests, and creating them.

What is known of a run after that belongs to `runs`; reading spec files and flags belongs to `spec` and `options`.
"""
