"""The contribution as values: layout switches, pass lists, and the planner that chooses them."""
