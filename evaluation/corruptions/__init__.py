"""Degraded inputs: what a model reads gets worse in stated ways and severities, while the truth stays as it was."""
