"""Predicted times and memory: the closed form, the timeline of the pass lists, the fit."""
