"""What only reproduces the paper: its experiments, figures and claims; nothing else needs it."""
