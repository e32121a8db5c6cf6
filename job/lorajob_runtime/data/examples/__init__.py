"""The small dataset that a run trains on when it is given none."""
