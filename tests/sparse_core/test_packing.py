"""Masks as bits and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_core.packing import pack, unpack


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 1000))
def test_unpacking_gives_the_mask_back(shape: list[int], seed: int) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack(mask)
    assert packed.dtype == torch.uint8
    assert packed.numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack(packed, tuple(shape)), mask)


def test_the_first_link_is_the_lowest_bit() -> None:
    mask = torch.tensor([[True, False, True], [True, False, False], [False, True, True]])
    assert pack(mask).tolist() == [0b10001101, 0b1]
    assert torch.equal(unpack(pack(mask.t()), (3, 3)), mask.t())


@pytest.mark.parametrize("packed", [torch.zeros(1, dtype=torch.uint8), torch.zeros(3, dtype=torch.uint8), torch.zeros(2)])
def test_other_sizes_and_types_are_refused(packed: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"do not hold a mask of shape \(3, 3\)"):
        unpack(packed, (3, 3))
