"""Counting what a GPU would be asked to do, on a machine without one: no tensor here has any memory."""
