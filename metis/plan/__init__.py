"""From inputs to a plan: the space, the walk, the cost, the search."""
