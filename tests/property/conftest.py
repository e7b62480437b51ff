"""Hypothesis for kernels: the first call compiles, so no deadline; fixed seeds, so that CI repeats."""

from hypothesis import settings

settings.register_profile("millrace", deadline=None, derandomize=True)
settings.load_profile("millrace")
