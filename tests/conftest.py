"""What holds for every test: none depends on how fast the machine is."""

from hypothesis import HealthCheck, settings

# Hypothesis would call a property broken because an example took 200 ms, or was slow to make.
settings.register_profile("any_speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_speed")
