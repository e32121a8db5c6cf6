"""How weights and gradients are spread over ranks and brought together."""
