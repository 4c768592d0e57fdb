"""Thresholds, bands and verdicts: when a number is a problem."""
