"""Sweeps: plans are data, one trial is one run of any domain, and executors see that every trial is run once."""
