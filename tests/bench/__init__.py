"""Measurements; compare ratios of one run, never absolute times."""
