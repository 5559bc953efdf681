"""Comparisons of trainings with error bars: variants and seeds in, differences with intervals out."""
