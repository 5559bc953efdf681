"""A linear layer that stores and multiplies its active links only, and trains."""

from __future__ import annotations

import math
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from sparse_core.sparse.kernels import csr_product, csr_sampled

_DTYPES = (torch.float32, torch.float64)


class Linear(nn.Module):
    """`y = x @ W.T + bias` for a W with few entries, whose places are fixed.

    Made by `Linear.from_dense`. `values`: (L,), a parameter, the L links of W row by row; `bias`: (O,) or None. Buffers
    `row_offsets`: (O + 1,) and `columns`: (L,) give their places; both are in the state dict, so loading one brings its places
    along.

    Takes any leading dimensions. float32 and float64; under autocast it computes in its own precision. Memory a link in
    float32: 8 bytes for inference (its value and its column), 16 in training when the input needs a gradient (its place in the
    transposed matrix, made once, when first needed), and 4 for its gradient. Derivatives of any order; works in `torch.compile`
    and `torch.export`.
    """

    row_offsets: Tensor
    columns: Tensor
    _transposed_offsets: Tensor | None
    _transposed_rows: Tensor | None
    _transposed_order: Tensor | None

    def __init__(
        self, in_features: int, out_features: int, row_offsets: Tensor, columns: Tensor, values: Tensor, bias: Tensor | None
    ) -> None:
        """Take the parts as they are. Raises ValueError if they do not describe an (out_features, in_features) matrix."""
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        if problem := _problem(row_offsets, columns, in_features, out_features):
            raise ValueError(f"not a CSR matrix: {problem}")
        if values.shape != columns.shape or (bias is not None and bias.shape != (out_features,)):
            raise ValueError(f"values {tuple(values.shape)} for {columns.numel()} links, bias for {out_features} outputs")
        wide = max(columns.numel(), in_features, out_features) > torch.iinfo(torch.int32).max
        index_dtype = torch.int64 if wide else torch.int32
        self.values = nn.Parameter(values)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.register_buffer("row_offsets", row_offsets.to(index_dtype))
        self.register_buffer("columns", columns.to(index_dtype))
        self._forget_transposed()

    @classmethod
    def from_dense(cls, dense: nn.Linear, mask: Tensor) -> Self:
        """The layer with the weights of `dense` where `mask`, bool of shape (O, I), is True. Copies; `dense` stays as it is.

        Raises TypeError for a mask that is not bool or a layer that is not in float32 or float64, ValueError for a weight that
        is not a matrix, a mask of another shape, or weights or biases that are not finite.
        """
        weight = dense.weight.detach()
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"mask must be a bool tensor, not {getattr(mask, 'dtype', type(mask).__name__)}")
        if weight.dtype not in _DTYPES:
            raise TypeError(f"weights are {weight.dtype}; a sparse layer needs float32 or float64")
        if weight.dim() != 2 or mask.shape != weight.shape:
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}, the weight {tuple(weight.shape)}; both must be one matrix shape"
            )
        mask = mask.to(weight.device)
        values = weight[mask]
        bias = None if dense.bias is None else dense.bias.detach().clone()
        if not (values.isfinite().all() and (bias is None or bias.isfinite().all())):
            raise ValueError("weights and biases must be finite")
        row_offsets = torch.zeros(weight.shape[0] + 1, dtype=torch.int64, device=weight.device)
        torch.cumsum(mask.sum(1), 0, out=row_offsets[1:])
        layer = cls(weight.shape[1], weight.shape[0], row_offsets, mask.nonzero()[:, 1], values, bias)
        layer.values.requires_grad_(dense.weight.requires_grad)
        if layer.bias is not None:
            layer.bias.requires_grad_(dense.bias.requires_grad)
        layer.train(dense.training)
        return layer

    def to_dense(self) -> nn.Linear:
        """A dense layer with the same function, zero outside the links. Copies."""
        dense = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")  # draws no numbers
        dense.weight = nn.Parameter(self.weight.detach(), requires_grad=self.values.requires_grad)
        if self.bias is not None:
            dense.bias = nn.Parameter(self.bias.detach().clone(), requires_grad=self.bias.requires_grad)
        return dense.train(self.training)

    @property
    def weight(self) -> Tensor:
        """W as a new dense (O, I) tensor, for code that asks for it; its gradient reaches `values`."""
        dense = self.values.new_zeros(self.out_features, self.in_features)
        return dense.index_put((self._rows(), self.columns.long()), self.values)

    @property
    def mask(self) -> Tensor:
        """Places of the links as a new bool tensor (O, I)."""
        mask = torch.zeros(self.out_features, self.in_features, dtype=torch.bool, device=self.values.device)
        mask[self._rows(), self.columns.long()] = True
        return mask

    @property
    def density(self) -> float:
        """Number of links over the number of entries of W."""
        return self.values.numel() / max(self.in_features * self.out_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., I). Returns (..., O). Raises ValueError for another last dimension, TypeError for another precision."""
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"input has shape {tuple(x.shape)}, its last dimension must be {self.in_features}")
        if x.dtype != self.values.dtype:
            if not torch.is_autocast_enabled(x.device.type):
                raise TypeError(f"input is {x.dtype}, the layer {self.values.dtype}")
            x = x.to(self.values.dtype)
        tokens = x.reshape(math.prod(x.shape[:-1]), self.in_features)
        if torch.is_grad_enabled() and (self.values.requires_grad or x.requires_grad):
            transposed = self._transposed() if x.requires_grad else None
            y = _product(self.values, tokens, (self.row_offsets, self.columns), transposed)
        else:
            y = csr_product(self.values, tokens, self.row_offsets, self.columns)
        if self.bias is not None:
            y += self.bias
        return y.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Sizes, for print."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, links={self.values.numel()}, density={self.density:.4g}"

    def _rows(self) -> Tensor:
        """Row of every link, int64, shape (L,)."""
        rows = torch.arange(self.out_features, device=self.columns.device)
        return torch.repeat_interleave(rows, self.row_offsets.long().diff(), output_size=self.columns.numel())

    def _transposed(self) -> Transposed:
        """The pattern of W.T and the place in `values` of each of its links."""
        if self._transposed_offsets is None or self._transposed_rows is None or self._transposed_order is None:
            dtype = self.columns.dtype
            order = torch.argsort(self.columns, stable=True)
            counts = torch.bincount(self.columns, minlength=self.in_features)
            self._transposed_offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(dtype)
            self._transposed_rows = self._rows()[order].to(dtype)
            self._transposed_order = order.to(dtype)
        return self._transposed_offsets, self._transposed_rows, self._transposed_order

    def _forget_transposed(self) -> None:
        for name in ("_transposed_offsets", "_transposed_rows", "_transposed_order"):
            self.register_buffer(name, None, persistent=False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Check the places before anything is copied: the kernels trust them, and would read outside of their memory."""
        error_msgs: list[str] = args[-1]
        offsets, columns = (state_dict.get(prefix + name) for name in ("row_offsets", "columns"))
        if offsets is not None or columns is not None:
            if not isinstance(offsets, Tensor) or not isinstance(columns, Tensor):
                problem = "row_offsets and columns belong together"
            elif columns.shape != self.columns.shape:
                problem = f"it has {columns.numel()} links, this layer {self.columns.numel()}"
            else:
                problem = _problem(offsets, columns, self.in_features, self.out_features)
            if problem:
                error_msgs.append(f"{prefix.rstrip('.') or 'sparse Linear'}: {problem}")
                return
            self._forget_transposed()
        super()._load_from_state_dict(state_dict, prefix, *args)


Pattern = tuple[Tensor, Tensor]
Transposed = tuple[Tensor, Tensor, Tensor]


def _problem(offsets: Tensor, columns: Tensor, in_features: int, out_features: int) -> str:
    """What is wrong with a pattern, empty if nothing is."""
    if offsets.shape != (out_features + 1,) or columns.dim() != 1:
        return f"offsets of shape {tuple(offsets.shape)} and columns of shape {tuple(columns.shape)} for {out_features} rows"
    if offsets.is_floating_point() or columns.is_floating_point():
        return f"places must be integers, not {offsets.dtype} and {columns.dtype}"
    if offsets.is_meta or columns.is_meta:
        return ""
    if offsets[0] != 0 or offsets[-1] != columns.numel() or (offsets.diff() < 0).any():
        return f"row offsets must rise from 0 to {columns.numel()}"
    if columns.numel():
        if columns.min() < 0 or columns.max() >= in_features:
            return f"a column lies outside of 0 to {in_features - 1}"
        starts = torch.zeros(columns.numel() + 1, dtype=torch.bool, device=columns.device)
        starts[offsets.long()] = True
        if ((columns.diff() <= 0) & ~starts[1:-1]).any():
            return "the columns of a row must rise"
    return ""


def _product(values: Tensor, x: Tensor, pattern: Pattern, transposed: Transposed | None) -> Tensor:
    """`x @ W.T` with derivatives. `transposed` may be None if `x` needs no gradient."""
    y: Tensor = _Product.apply(values, x, *pattern, *(transposed or (None, None, None)))  # type: ignore[no-untyped-call]
    return y


class _Product(torch.autograd.Function):
    """The product x @ W.T. Its gradients are products of the same kinds, so that it has derivatives of any order."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        x: Tensor,
        offsets: Tensor,
        columns: Tensor,
        t_offsets: Tensor | None,
        t_rows: Tensor | None,
        t_order: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(values, x, offsets, columns, t_offsets, t_rows, t_order)
        return cast(Tensor, csr_product(values, x, offsets, columns))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, x, *places = ctx.saved_tensors
        d_values = d_x = None
        if ctx.needs_input_grad[0]:
            d_values = _Sampled.apply(grad, x, *places)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            d_x = _transposed_product(values, grad, *places)
        return d_values, d_x, None, None, None, None, None


class _Sampled(torch.autograd.Function):
    """Entries of grad.T @ x at the links: the gradient of `values`."""

    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        x: Tensor,
        offsets: Tensor,
        columns: Tensor,
        t_offsets: Tensor | None,
        t_rows: Tensor | None,
        t_order: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(grad, x, offsets, columns, t_offsets, t_rows, t_order)
        return cast(Tensor, csr_sampled(grad, x, offsets, columns))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        upper, x, *places = ctx.saved_tensors
        d_upper = d_x = None
        if ctx.needs_input_grad[0]:
            d_upper = _Product.apply(grad, x, *places)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            d_x = _transposed_product(grad, upper, *places)
        return d_upper, d_x, None, None, None, None, None


def _transposed_product(
    values: Tensor, grad: Tensor, offsets: Tensor, columns: Tensor, t_offsets: Tensor, t_rows: Tensor, t_order: Tensor
) -> Tensor:
    """`grad @ W`, (N, I), as a product with W.T in CSR form."""
    back = torch.argsort(t_order).to(t_order.dtype) if torch.is_grad_enabled() else None
    there = values.index_select(0, t_order)
    return _product(there, grad, (t_offsets, t_rows), None if back is None else (offsets, columns, back))
