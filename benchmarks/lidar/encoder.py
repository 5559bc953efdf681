"""What the tiny preset's LiDAR encoder learns from points alone: where a pedestrian will be to the side after 2.5 s.

usage: python benchmarks/lidar/encoder.py SHARDS [--points 256] [--frames 3] [--no-mirror] [--epochs 10]

Prints the correlation with the truth on training and validation scenes, the latter also for agents of at least 60 points now.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from limtr.agent_view import build_agent_batch
from limtr.batch import collate
from limtr.config import tiny
from limtr.point_encoder import LidarEncoder
from limtr.scene import ObjectType
from preprocessing.shards import SceneSource

STEP, LARGEST_M, NEAR_POINTS, BATCH = 24, 3.0, 60, 32
Examples = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def read(folder: Path, split: str, points: int, frames: int) -> Examples:
    """Points (n, T, N, F), mask (n, T, N) and the clipped lateral position (n,) of the split's pedestrians."""
    source = SceneSource(folder, split)
    view = replace(tiny().view, num_lidar_points=points, num_polylines=1)
    parts: list[Examples] = []
    for start in range(0, len(source), 16):
        scenes = [source[row] for row in range(start, min(start + 16, len(source)))]
        agents = build_agent_batch(collate(scenes, num_lidar_points=points), view)
        assert agents.center_future is not None
        assert agents.center_future_mask is not None
        assert agents.lidar_points is not None
        assert agents.lidar_mask is not None
        kept = (agents.center_type == ObjectType.PEDESTRIAN) & agents.center_future_mask[:, STEP]
        side = agents.center_future[kept, STEP, 1].clamp(-LARGEST_M, LARGEST_M)
        parts.append((agents.lidar_points[kept, -frames:], agents.lidar_mask[kept, -frames:], side))
    points_xyz, mask, side = (torch.cat([part[index] for part in parts]) for index in range(3))
    return points_xyz, mask, side


def correlation(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack((left, right)))[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--points", type=int, default=256)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    train, validation = (read(given.shards, split, given.points, given.frames) for split in ("train", "validation"))
    torch.manual_seed(0)
    config = tiny().encoder.lidar
    assert config is not None
    encoder, head = LidarEncoder(train[0].shape[-1], given.frames, config, 64), nn.Linear(64, 1)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, given.epochs)
    for _ in range(given.epochs):
        encoder.train()
        for rows in torch.randperm(len(train[0])).split(BATCH):
            points, mask, side = (part[rows] for part in train)
            if given.mirror:
                sign = torch.where(torch.rand(len(rows)) < 0.5, -1.0, 1.0)
                flip = torch.ones(points.shape[-1]).index_fill(0, torch.tensor(1), -1.0)
                points = torch.where((sign < 0)[:, None, None, None], points * flip, points)
                side = side * sign
            loss = (head(encoder(points, mask)).squeeze(1) - side).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    encoder.eval()
    with torch.no_grad():
        seen, new = (head(encoder(part[0], part[1])).squeeze(1) for part in (train, validation))
    near = validation[1][:, -1].sum(dim=1) >= NEAR_POINTS
    print(
        f"{given.shards}: {len(seen)} examples, {given.points} points, {given.frames} frames, mirror {given.mirror}: "
        f"correlation {correlation(seen, train[2]):.2f} in training, {correlation(new, validation[2]):.2f} in validation, "
        f"{correlation(new[near], validation[2][near]):.2f} of which near"
    )


if __name__ == "__main__":
    main()
