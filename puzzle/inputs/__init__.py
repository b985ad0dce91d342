"""What a question consists of: models, layouts, clusters, workloads, and the published runs."""
