"""A simulator that writes records as WOMD does."""
