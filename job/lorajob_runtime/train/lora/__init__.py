"""The adapter: what it is attached to, and its forward and backward pass, on linear layers and on experts."""
