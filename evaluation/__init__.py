"""Predictions to numbers, files and pictures."""
