"""Metrics of operations: what the checks find, as Prometheus reads it."""
