"""What a run would take, before anything is spent: GPUs, memory, downloads, speed; as text and as JSON.

How much memory training takes is the runtime's to say (`lorajob_runtime.models.memory_plan`). Nothing here contacts a
cluster.
"""
