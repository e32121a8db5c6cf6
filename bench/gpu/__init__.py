"""What bench/gpu.sh runs on a machine with a CUDA card: checks against references, whole trainings, speeds.

Its parts run on a CPU too, with tiny sizes, which shows that they run and nothing else.
"""
