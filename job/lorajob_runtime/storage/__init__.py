"""A run's files beyond this machine: stores, checkpoints, uploading, resuming, and who may write.

Nothing here knows what a checkpoint's tensors mean, or when one is due.
"""
