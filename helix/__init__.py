"""Helix: serving one large model over unlike GPUs and networks by max-flow placement.

After Y. Mei et al., *Helix: Serving Large Language Models over Heterogeneous GPUs and Network via
Max-Flow*, ASPLOS 2025 (arXiv 2406.01566). Every machine holds a run of consecutive layers; which
tokens pass where is a maximum flow from the coordinator through the machines back to it. A
placement is judged by that flow and, better, by simulating the service request by request.

Reading order: `inputs` (`machine`, `model`, `profile`, `cluster`, `layout`, `generate`,
`original_files`) → `plan` (`throughput`, `placement`, `baselines`, `flow_graph`, `max_flow`,
`bounds`, `routing`) → `simulate` (`requests`, `system`, `engine`, `kernel`, `metrics`) → `run`
(`llama`, `engine`, `worker`, `head`, `serving`, `http`, `drive`), where a plan serves for real.
"""
