"""The machine and its operating system: settings, processes, locks, keys, GPUs. Nothing here knows what a run is."""
