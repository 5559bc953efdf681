"""Layers that store and multiply their active links only."""

from sparse_core.sparse.compile import CompiledSparse, Decision, Timing, compile_sparse, interleaved
from sparse_core.sparse.linear import Linear
from sparse_core.sparse.semi_structured import to_24

__all__ = ["CompiledSparse", "Decision", "Linear", "Timing", "compile_sparse", "interleaved", "to_24"]
