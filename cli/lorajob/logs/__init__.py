"""The log of a run: from its pods while they are there, else from storage; which lines, and in what order."""
