"""What the paper takes as given: machines, links, models and their measured profiles."""
