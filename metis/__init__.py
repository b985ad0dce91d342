"""Metis: the best parallel training plan for a cluster of unlike GPUs."""
