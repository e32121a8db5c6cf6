"""How weights, gradients and work are spread over ranks, what memory allows, and what ranks tell each other."""
