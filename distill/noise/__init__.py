"""Noise schedules, timestep sampling, weighting and output parameterizations."""
