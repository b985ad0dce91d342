"""What is given: the model, the machine's constants, the pipeline, the published tables."""
