"""The two products of a matrix in CSR form that a linear layer needs, as torch operators.

N tokens, I input and O output features, L links (stored entries). A pattern is `offsets`, shape (O + 1,), and `indices`, shape
(L,): row o holds the columns `indices[offsets[o]:offsets[o + 1]]`.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

# On CPU a block of tokens is worked through at a time, so that what a row gathers from stays in the L2 cache.
_PRODUCT_TOKENS = 64
_SAMPLED_TOKENS = 256
_VECTOR = 16  # float32 lanes; blocks are padded to whole vectors


@torch.library.custom_op("sparse_core::csr_product", mutates_args=())
def csr_product(values: Tensor, x: Tensor, offsets: Tensor, indices: Tensor) -> Tensor:
    """`x @ W.T`. `values`: (L,), entries of W, shape (O, I). `x`: (N, I). Returns (N, O), contiguous.

    On CPU this is an embedding bag: feature i of all tokens is row i of a table, and output feature o is the weighted sum of
    the rows that its links name. That is FBGEMM's fastest kernel. For fewer tokens than a vector holds, and on other devices,
    the sparse matrix product of the vendor's library is faster.
    """
    num_rows = offsets.numel() - 1
    out = x.new_empty(x.shape[0], num_rows)
    if out.numel() == 0 or indices.numel() == 0:
        return out.zero_()
    few = x.shape[0] < _VECTOR and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    if few or x.device.type != "cpu":
        return out.copy_((_csr_tensor(offsets, indices, values, (num_rows, x.shape[1])) @ x.t()).t())
    for start in range(0, x.shape[0], _PRODUCT_TOKENS):
        block = x[start : start + _PRODUCT_TOKENS]
        bags = F.embedding_bag(
            indices, _columns(block), offsets, mode="sum", per_sample_weights=values, include_last_offset=True
        )
        out[start : start + _PRODUCT_TOKENS] = bags[:, : block.shape[0]].t()
    return out


@torch.library.custom_op("sparse_core::csr_sampled", mutates_args=())
def csr_sampled(grad: Tensor, x: Tensor, offsets: Tensor, indices: Tensor) -> Tensor:
    """Entries of `grad.T @ x` at the links. `grad`: (N, O). `x`: (N, I). Returns (L,)."""
    total = x.new_zeros(indices.numel())
    if total.numel() == 0:
        return total
    shape = (grad.shape[1], x.shape[1])
    for start in range(0, x.shape[0], _SAMPLED_TOKENS):
        block = slice(start, start + _SAMPLED_TOKENS)
        pattern = _csr_tensor(offsets, indices, total, shape)
        total = torch.sparse.sampled_addmm(
            pattern, _columns(grad[block]), _columns(x[block]).t(), beta=float(start > 0)
        ).values()
    return total


@csr_product.register_fake
def _(values: Tensor, x: Tensor, offsets: Tensor, indices: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], offsets.shape[0] - 1)


@csr_sampled.register_fake
def _(grad: Tensor, x: Tensor, offsets: Tensor, indices: Tensor) -> Tensor:
    return x.new_empty(indices.shape[0])


@register_flop_formula(torch.ops.sparse_core.csr_product)
def _product_flops(values: Any, x: Any, offsets: Any, indices: Any, out_shape: Any = None, **_: Any) -> int:
    return 2 * int(indices[0]) * int(x[0])


@register_flop_formula(torch.ops.sparse_core.csr_sampled)
def _sampled_flops(grad: Any, x: Any, offsets: Any, indices: Any, out_shape: Any = None, **_: Any) -> int:
    return 2 * int(indices[0]) * int(x[0])


def _columns(block: Tensor) -> Tensor:
    """Tokens as columns, contiguous, shape (features, N rounded up to whole vectors), zero in the columns added.

    Odd widths are several times slower in both kernels, and FBGEMM compiles and keeps a kernel for each width that it meets.
    """
    surplus = -block.shape[0] % _VECTOR if block.device.type == "cpu" else 0
    if not surplus:
        return block.t().contiguous()
    columns = block.new_zeros(block.shape[1], block.shape[0] + surplus)
    columns[:, : block.shape[0]] = block.t()
    return columns


@cache
def _silence_beta_warning() -> None:
    """Use up torch's one warning that its CSR tensors are in beta: a user of this library did not choose them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), torch.tensor([]), (1, 1))


def _csr_tensor(offsets: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A CSR tensor over the given memory, unchecked: a layer checks its pattern whenever it changes."""
    _silence_beta_warning()
    return torch.sparse_csr_tensor(offsets, indices, values, shape, check_invariants=False)
