"""A placement and a workload give who is served, when, and in time; no process is started."""
