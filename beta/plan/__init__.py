"""The contribution: which models share which devices, and how each group runs them."""
