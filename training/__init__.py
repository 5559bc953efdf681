"""Shards to checkpoints."""
