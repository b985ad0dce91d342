"""A placement as a running service on Ray: controller, group managers, stage workers; and its load.

`service` starts it; `controller` and `endpoint` take requests, `manager` admits them to its group,
`worker` computes one shard of one stage (`stage`, `weights`), `client` puts the load on.
"""
