"""What Metis takes as given: model, cluster and profiles."""
