"""The reproduction of the paper: its experiments, published figures, claims, tables, figures."""
