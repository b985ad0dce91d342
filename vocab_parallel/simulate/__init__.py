"""A plan in time and memory, without any process: pass times, timeline, peak memory, pictures."""
