"""The frozen model's own elementwise work as few hand-written functions, taken where they give the model's numbers."""
