"""Schedules: what every pipeline rank runs in one iteration, made by pure functions and checked."""
