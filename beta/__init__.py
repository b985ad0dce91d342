"""AlpaServe (OSDI '23): place many models on few devices, sharing them by model parallelism.

The idea: two models that share two devices as one pipeline can each use both devices in a burst,
where two replicas on one device each cannot. Read in this order: `inputs` (profiles, models,
clusters, arrivals, traces), `simulate` (a placement and a workload -> who was served in time),
`plan` (models, a cluster and a workload -> the placement), `run` (a placement -> a service on Ray).
"""
