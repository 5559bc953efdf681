"""Nearest tokens: those of a full sort, never invalid ones."""

from __future__ import annotations

import pytest
import torch

from limtr.neighbors import nearest_tokens


def test_nearest_tokens_are_those_of_a_full_sort_and_never_invalid() -> None:
    torch.manual_seed(1)
    position, valid = torch.randn(3, 14, 3), torch.rand(3, 14) < 0.7
    near = nearest_tokens(position, valid, 4).allowed()
    for row in range(3):
        ids = valid[row].nonzero().squeeze(1)
        distance = torch.cdist(position[row, ids].double(), position[row, ids].double())
        for place, token in enumerate(ids):
            expected = set(ids[distance[place].argsort()[:4]].tolist())
            assert set(near[row, token].nonzero().squeeze(1).tolist()) == expected
            assert int(token) in expected
        assert not near[row, ~valid[row]].any()


@pytest.mark.parametrize("count", [1, 3, 50])
def test_fewer_valid_tokens_than_neighbours_are_all_seen(count: int) -> None:
    near = nearest_tokens(torch.randn(1, 6, 3), torch.tensor([[True, True, False, False, False, False]]), count).allowed()
    assert near.sum() == 2 * min(count, 2)
