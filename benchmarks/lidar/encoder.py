"""What the tiny preset's LiDAR encoder learns from points alone: how far an agent goes to the side in the coming 3 s.

usage: python benchmarks/lidar/encoder.py SHARDS [--kind pedestrian] [--points 256] [--no-mirror] [--epochs 10]
                                          [--start RUN --save FILE.safetensors]

Prints the correlation with the truth after 2.5 s on training and validation scenes, the latter also for agents of at least 60
points now. With --start and --save, a tiny LiMTR with the weights of that run (an MTR's, say) and this encoder is written:
trainings that begin there (`limtr train --init-from`) need not learn to read points first.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from limtr.agent_view import build_agent_batch
from limtr.batch import collate
from limtr.config import tiny
from limtr.predictor import MotionPredictor
from limtr.scene import ObjectType
from preprocessing.shards import SceneSource

STEPS, TOLD_STEP, LARGEST_M, NEAR_POINTS, BATCH = 30, 24, 3.0, 60, 32
Examples = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def read(folder: Path, split: str, kind: ObjectType, points: int) -> Examples:
    """Points (n, T, N, F), mask (n, T, N), clipped lateral positions (n, 30) of the split's agents, and which are known."""
    source = SceneSource(folder, split, lidar_points=points)
    view = replace(tiny().view, num_lidar_points=points, num_polylines=1)
    parts: list[Examples] = []
    for start in range(0, len(source), 16):
        scenes = [source[row] for row in range(start, min(start + 16, len(source)))]
        agents = build_agent_batch(collate(scenes, num_lidar_points=points), view)
        assert agents.center_future is not None
        assert agents.center_future_mask is not None
        assert agents.lidar_points is not None
        assert agents.lidar_mask is not None
        kept = (
            (agents.center_type == kind) & agents.lidar_mask.any(dim=(1, 2)) & agents.center_future_mask[:, :STEPS].any(dim=1)
        )
        side = agents.center_future[kept, :STEPS, 1].clamp(-LARGEST_M, LARGEST_M)
        missing = points - agents.lidar_points.shape[2]  # a batch has as many places as its largest crop needs
        cloud = torch.nn.functional.pad(agents.lidar_points[kept], (0, 0, 0, missing))
        mask = torch.nn.functional.pad(agents.lidar_mask[kept], (0, missing))
        parts.append((cloud, mask, side, agents.center_future_mask[kept, :STEPS]))
    cloud, mask, side, known = (torch.cat([part[index] for part in parts]) for index in range(4))
    return cloud, mask, side, known


def correlation(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack((left, right)))[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--kind", choices=("pedestrian", "cyclist", "vehicle"), default="pedestrian")
    parser.add_argument("--points", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    if (given.start is None) != (given.save is None):
        parser.error("--start and --save go together")
    kind = ObjectType[given.kind.upper()]
    train, validation = (read(given.shards, split, kind, given.points) for split in ("train", "validation"))
    torch.manual_seed(0)
    config = tiny()
    model = MotionPredictor(replace(config, view=replace(config.view, num_lidar_points=given.points)))
    if given.start is not None:
        print(model.initialise_from(given.start))
    encoder, head = model.encoder.lidar_encoder, model.encoder.lidar_side_head
    assert encoder is not None
    assert head is not None
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, given.epochs)
    for _ in range(given.epochs):
        encoder.train()
        for rows in torch.split(torch.randperm(len(train[0])), BATCH):
            points, mask, side, known = (part[rows] for part in train)
            if given.mirror:
                sign = torch.where(torch.rand(len(rows)) < 0.5, -1.0, 1.0)
                flip = torch.ones(points.shape[-1]).index_fill(0, torch.tensor(1), -1.0)
                points = torch.where((sign < 0)[:, None, None, None], points * flip, points)
                side = side * sign.unsqueeze(1)
            error = (head(encoder(points, mask)) - side).square() * known
            loss = (error.sum(dim=1) / known.sum(dim=1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    encoder.eval()
    with torch.no_grad():
        seen, new = (
            torch.cat(
                [head(encoder(*batch)) for batch in zip(torch.split(part[0], 256), torch.split(part[1], 256), strict=True)]
            )
            for part in (train, validation)
        )
    cells = []
    near = validation[1][:, -1].sum(dim=1) >= NEAR_POINTS
    everyone = torch.ones(len(train[0]), dtype=torch.bool)
    for where, said, (_, _, side, known), chosen in (
        ("in training", seen, train, everyone),
        ("in validation", new, validation, torch.ones_like(near)),
        ("of which near", new, validation, near),
    ):
        kept = chosen & known[:, TOLD_STEP]
        cells.append(f"{correlation(said[kept, TOLD_STEP], side[kept, TOLD_STEP]):.2f} {where}")
    told = f"{len(train[0])} {given.kind}s, {given.points} points, mirror {given.mirror}"
    print(f"{given.shards}: {told}: correlation {', '.join(cells)}")
    if given.save is not None:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, given.save)


if __name__ == "__main__":
    main()
