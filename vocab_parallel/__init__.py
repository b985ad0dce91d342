"""Vocabulary Parallelism: pipelines in which no stage is the bottleneck of a large vocabulary.

The input and output matrices are cut by rows over all pipeline ranks, and the output layer becomes
two passes, S and T, that every rank runs per micro-batch like any other (Yeung et al., MLSys 2025).

Read `inputs` (model, machine, experiment), `plan` (schedules as data, their checker), `simulate`
(time and memory of a schedule), `run` (real ranks), then `experiments`, `cases`, `report`.
"""
