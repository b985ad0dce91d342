"""What holds for every test: properties are judged by their facts, not by this machine's speed."""

from hypothesis import HealthCheck, settings

# A kernel that compiles on its first call, or a busy machine, is no fault of a property.
settings.register_profile("quintet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quintet")
