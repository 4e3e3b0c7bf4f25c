"""Alarms of the orchestrator: what fires, who is told, and that nobody is told twice."""
