"""Dynamic map collection: chunks change nothing, and the choice is that of a full sort."""

from __future__ import annotations

import pytest
import torch

from limtr.map_collection import collect_polylines, nearest_waypoint_distance


@pytest.mark.parametrize("max_elements", [1, 17, 300, 1 << 22])
def test_the_buffer_bound_does_not_change_the_distances(max_elements: int) -> None:
    torch.manual_seed(0)
    waypoints, centers = torch.randn(2, 5, 7, 2), torch.randn(2, 9, 2)
    expected = (waypoints[:, :, :, None] - centers[:, None, None]).square().sum(-1).amin(2)
    torch.testing.assert_close(nearest_waypoint_distance(waypoints, centers, max_elements=max_elements), expected)


def test_no_buffer_is_larger_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    plain = torch.Tensor.square_

    def watched(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return plain(tensor)

    monkeypatch.setattr(torch.Tensor, "square_", watched)
    nearest_waypoint_distance(torch.randn(2, 6, 8, 2), torch.randn(2, 10, 2), max_elements=100)
    assert max(sizes) <= 100
    assert sum(sizes) == 2 * 2 * 6 * 8 * 10


@pytest.mark.parametrize(("num_base", "num_waypoint"), [(3, 2), (0, 4), (5, 0), (50, 50)])
def test_collected_are_the_nearest_to_the_point_ahead_and_to_the_waypoints(num_base: int, num_waypoint: int) -> None:
    torch.manual_seed(3)
    waypoints, centers = 20 * torch.randn(2, 4, 6, 2).double(), 20 * torch.randn(2, 15, 2).double()
    valid = torch.rand(2, 15) < 0.8
    found = collect_polylines(
        waypoints, centers, valid, base_center_m=(30.0, 0.0), num_base=num_base, num_waypoint=num_waypoint
    )
    for row in range(2):
        ids = valid[row].nonzero().squeeze(1)
        base = (centers[row, ids] - torch.tensor([30.0, 0.0])).norm(dim=-1).argsort()[:num_base]
        for query in range(4):
            distance = torch.cdist(waypoints[row, query], centers[row, ids]).amin(0)
            expected = {*ids[base].tolist(), *ids[distance.argsort()[:num_waypoint]].tolist()}
            assert set(found[row, query].nonzero().squeeze(1).tolist()) == expected
