"""What AlpaServe takes as given: profiles, models, a cluster, and who asks for what when."""
