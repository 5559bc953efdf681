"""sparse_core: dynamic sparse training for any PyTorch training loop, in one line.

    engine = sparse_core.sparsify(model, optimizer, sparse_core.RigL(density=0.1, end=30_000, every=100))

It imports torch and the standard library. docs/sparsity.md explains the words.
"""

from sparse_core import layout, masks, network_scores, sampling, schedules, scores, sparse, structure
from sparse_core.accounting import Cost, cost
from sparse_core.engine import SparseEngine
from sparse_core.initialisation import scale_to_fan_in
from sparse_core.layer import Proposal
from sparse_core.method import Method
from sparse_core.off_mask import OffMask
from sparse_core.presets import CHT, DSR, GMP, ITOP, MEST, SET, SNFS, SRSTE, CHTs, GraNet, RigL, SRigL, Static, TopKAST
from sparse_core.report import Report
from sparse_core.sparse import compile_sparse, to_24
from sparse_core.sparsify import sparsify
from sparse_core.structure import Structure

__all__ = [
    "CHT",
    "DSR",
    "GMP",
    "ITOP",
    "MEST",
    "SET",
    "SNFS",
    "SRSTE",
    "CHTs",
    "Cost",
    "GraNet",
    "Method",
    "OffMask",
    "Proposal",
    "Report",
    "RigL",
    "SRigL",
    "SparseEngine",
    "Static",
    "Structure",
    "TopKAST",
    "compile_sparse",
    "cost",
    "layout",
    "masks",
    "network_scores",
    "sampling",
    "scale_to_fan_in",
    "schedules",
    "scores",
    "sparse",
    "sparsify",
    "structure",
    "to_24",
]
