"""From inputs to a placement, its maximum flow and the routing weights that follow."""
