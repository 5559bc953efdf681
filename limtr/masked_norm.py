"""Batch norm over valid entries only, on padded tensors or packed rows, the same on one process or many."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional


def _sum_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all ranks; the gradient of every rank's copy flows back to every rank's part."""
    # Not there in a torch that was built for one process.
    from torch.distributed._functional_collectives import AsyncCollectiveTensor, all_reduce

    assert dist.group.WORLD is not None
    total: torch.Tensor = all_reduce(value, "sum", dist.group.WORLD)
    # Waited for here: what comes out would otherwise be a tensor that waits when it is read, of a class of its own.
    return total.wait() if isinstance(total, AsyncCollectiveTensor) else total


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class MaskedBatchNorm(nn.Module):
    """`torch.nn.BatchNorm1d` over the entries that a mask calls valid.

    In training, mean and variance come from the valid entries of all ranks (each rank may have another number of them, or
    none), and the running statistics follow as `BatchNorm1d`'s do. Without two valid entries there is no variance: the
    running statistics then stay as they are.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, num_channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def extra_repr(self) -> str:
        """Channels, for printing."""
        return f"{self.weight.shape[0]}, eps={self.eps}, momentum={self.momentum}"

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Normalise.

        Args:
            x: (..., D) features.
            mask: (...) bool, which entries count; None: all. What comes out at the others is finite if `x` is there, and
                otherwise meaningless.
        """
        if not self.training:
            scale = self.weight * torch.rsqrt(self.running_var + self.eps)
            shift = self.bias - self.running_mean * scale
            return x * scale.to(x.dtype) + shift.to(x.dtype) if x.dtype == scale.dtype else (x * scale + shift).to(x.dtype)
        rows = x.flatten(end_dim=-2)
        if mask is None and not _is_distributed() and not torch.compiler.is_compiling() and rows.shape[0] > 1:
            self.num_batches_tracked += 1
            normalised = functional.batch_norm(
                rows, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum, self.eps
            )
            return normalised.reshape(x.shape)
        return self._normalise_valid(x, mask)

    def _normalise_valid(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        # Statistics of half-precision activations are taken in the parameters' precision.
        values = x.to(self.weight.dtype)
        dims = tuple(range(x.dim() - 1))
        if mask is None:
            count = torch.full((1,), float(values[..., 0].numel()), dtype=values.dtype, device=x.device)
            total = values.sum(dims)
        else:
            keep = mask.unsqueeze(-1)
            values = torch.where(keep, values, 0.0)
            count = mask.sum().to(values.dtype).reshape(1)
            total = values.sum(dims)
        if _is_distributed():
            sums = _sum_over_ranks(torch.cat([total, count]))
            total, count = sums[:-1], sums[-1:].detach()
        at_least_one = count.clamp(min=1.0)
        mean = total / at_least_one
        centred = values - mean if mask is None else torch.where(keep, values - mean, 0.0)
        squares = centred.square().sum(dims)
        if _is_distributed():
            squares = _sum_over_ranks(squares)
        variance = squares / at_least_one
        self._track(mean.detach(), squares.detach(), count)
        return (centred * (torch.rsqrt(variance + self.eps) * self.weight) + self.bias).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, squares: torch.Tensor, count: torch.Tensor) -> None:
        # No branch on the data, so that compiled graphs stay whole.
        enough = count > 1
        unbiased = squares / (count - 1).clamp(min=1.0)
        momentum = enough.to(mean.dtype) * self.momentum
        self.running_mean += momentum * (torch.where(enough, mean, 0.0) - self.running_mean)
        self.running_var += momentum * (torch.where(enough, unbiased, 0.0) - self.running_var)
        self.num_batches_tracked += enough.squeeze(0).to(torch.int64)
