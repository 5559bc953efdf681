"""Batch norm over valid entries: as BatchNorm1d on the gathered rows, on one process and on several."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from limtr.masked_norm import MaskedBatchNorm


def twins(channels: int) -> tuple[MaskedBatchNorm, nn.BatchNorm1d]:
    ours, theirs = MaskedBatchNorm(channels).double(), nn.BatchNorm1d(channels).double()
    with torch.no_grad():
        ours.weight.normal_()
        ours.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.sampled_from([float("nan"), float("inf"), 1e6]))
def test_valid_entries_are_normalised_as_gathered_rows_whatever_the_masked_ones_hold(
    seed: int, rows: int, garbage: float
) -> None:
    torch.manual_seed(seed)
    ours, theirs = twins(3)
    x = torch.randn(rows, 4, 3, dtype=torch.float64)
    mask = torch.rand(rows, 4) < 0.6
    mask[0, :2] = True
    spoilt = torch.where(mask.unsqueeze(-1), x, garbage).requires_grad_()
    gathered = x[mask].requires_grad_()
    weight = torch.randn_like(gathered)
    for _ in range(2):
        found, expected = ours(spoilt, mask)[mask], theirs(gathered)
        torch.testing.assert_close(found, expected)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(spoilt.grad[mask], gathered.grad)
    assert not spoilt.grad[~mask].any()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()), rtol=1e-12, atol=1e-12)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x, mask)[mask], theirs(x[mask]))


def test_packed_rows_and_padded_entries_agree() -> None:
    torch.manual_seed(0)
    padded, _ = twins(3)
    packed = MaskedBatchNorm(3).double()
    packed.load_state_dict(padded.state_dict())
    x, mask = torch.randn(6, 5, 3, dtype=torch.float64), torch.rand(6, 5) < 0.5
    torch.testing.assert_close(padded(x, mask)[mask], packed(x[mask]))
    torch.testing.assert_close(padded.state_dict(), packed.state_dict())


@pytest.mark.parametrize("valid", [0, 1])
def test_too_few_valid_entries_leave_the_statistics_alone_and_stay_finite(valid: int) -> None:
    norm = MaskedBatchNorm(3)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    mask = torch.arange(4) < valid
    x = torch.randn(4, 3, requires_grad=True)
    norm(x, mask).sum().backward()
    norm(x[:0]).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(norm.weight.grad).all()
    torch.testing.assert_close(norm.state_dict(), before)


def test_half_precision_activations_keep_their_type_and_full_precision_statistics() -> None:
    norm = MaskedBatchNorm(3)
    x = (100 + torch.randn(64, 3)).to(torch.bfloat16)
    mask = torch.rand(64) < 0.7
    for result in (norm(x, mask), norm(x), norm.eval()(x)):
        assert result.dtype == torch.bfloat16
    assert norm.running_mean.dtype == torch.float32


def run_rank(rank: int, folder: str, counts: list[int], packed: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(counts))
    x, weight = shared_rows(sum(counts))
    start = sum(counts[:rank])
    mine = x[start : start + counts[rank]].clone().requires_grad_()
    norm = MaskedBatchNorm(3).double()
    if packed:
        result = norm(mine)
    else:
        garbage = torch.full((2, 3), float("nan"), dtype=torch.float64)
        mask = torch.arange(counts[rank] + 2) < counts[rank]
        result = norm(torch.cat((mine, garbage)), mask)[mask]
    (result * weight[start : start + counts[rank]]).sum().backward()
    torch.save({"out": result.detach(), "grad": mine.grad, "state": norm.state_dict()}, f"{folder}/{packed}{rank}.pt")
    dist.destroy_process_group()


def shared_rows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return (
        torch.randn(count, 3, generator=generator, dtype=torch.float64),
        torch.randn(count, 3, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize("packed", [True, False])
def test_ranks_with_different_counts_normalise_as_one(packed: bool) -> None:
    counts = [5, 0]
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(run_rank, args=(folder, counts, packed), nprocs=len(counts), start_method="fork")
        parts = [torch.load(Path(folder) / f"{packed}{rank}.pt", weights_only=True) for rank in range(len(counts))]
    x, weight = shared_rows(sum(counts))
    x.requires_grad_()
    whole = nn.BatchNorm1d(3).double()
    expected = whole(x)
    (expected * weight).sum().backward()
    torch.testing.assert_close(torch.cat([part["out"] for part in parts]), expected.detach())
    torch.testing.assert_close(torch.cat([part["grad"] for part in parts]), x.grad)
    for part in parts:
        torch.testing.assert_close(part["state"], dict(whole.state_dict()))
