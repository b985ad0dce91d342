"""The reproduction of the paper: experiments, logs, published figures, claims, its runs again."""
