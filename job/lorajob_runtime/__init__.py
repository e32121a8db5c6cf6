"""What runs in the training container, and under `lorajob run`. Knows nothing of the command line."""

__version__ = "0.1.0"
