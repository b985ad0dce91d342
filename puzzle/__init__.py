"""Puzzle: PPO alignment of language models with light-weight context switches.

A PPO step generates, scores and trains with four models on the same devices (Lei et al., USENIX ATC
2024). Between stages the actor's weights move to a layout that generates faster; the training
pipelines of actor and critic are merged into one.

Read `inputs` (models, layouts, clusters, experiments), `plan` (layout switches, schedules, the
planner), `simulate` (closed form and timeline), `run` (real ranks), then `experiments`, `cases`,
`report`.
"""
