"""Layers that store and multiply their active links only."""

from sparse_core.sparse.linear import Linear

__all__ = ["Linear"]
