"""The corruptions by name, each at five severities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from evaluation.corruptions.draws import generator
from evaluation.corruptions.lidar import delay, drop_points, fog, range_noise
from evaluation.corruptions.map import missing_map
from evaluation.corruptions.tracks import missing_history, track_noise
from limtr.scene import Scene

SEVERITIES = (1, 2, 3, 4, 5)
CorruptionName = Literal[
    "all", "lidar-dropout", "lidar-range-noise", "lidar-fog", "lidar-delay", "track-noise", "missing-history", "missing-map"
]
"""What `--corrupt` takes: every key of `CORRUPTIONS`, or all of them."""


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One way in which inputs get worse.

    Attributes:
        title: for people.
        apply: (scene, amount, generator) -> degraded scene; the future and the list of targets stay.
        amounts: of each severity, mildest first.
        unit: what an amount is, with its unit.
        needs_lidar: whether it changes nothing but LiDAR points.
    """

    title: str
    apply: Callable[[Scene, Any, np.random.Generator], Scene]
    amounts: tuple[float, ...] | tuple[int, ...]
    unit: str
    needs_lidar: bool = False

    def __post_init__(self) -> None:
        if len(self.amounts) != len(SEVERITIES):
            raise ValueError(f"{self.title}: one amount for each of the severities {SEVERITIES}, has {self.amounts}")


CORRUPTIONS: Mapping[str, Corruption] = {
    "lidar-dropout": Corruption(
        title="LiDAR points lost", apply=drop_points, amounts=(0.25, 0.5, 0.75, 0.9, 0.98), unit="share lost", needs_lidar=True
    ),
    "lidar-range-noise": Corruption(
        title="LiDAR range noise", apply=range_noise, amounts=(0.02, 0.05, 0.1, 0.2, 0.4), unit="sigma (m)", needs_lidar=True
    ),
    "lidar-fog": Corruption(
        title="fog", apply=fog, amounts=(500.0, 200.0, 100.0, 50.0, 25.0), unit="visibility (m)", needs_lidar=True
    ),
    "lidar-delay": Corruption(
        title="LiDAR frames late", apply=delay, amounts=(1, 2, 3, 4, 5), unit="steps of 0.1 s", needs_lidar=True
    ),
    "track-noise": Corruption(
        title="track noise", apply=track_noise, amounts=(0.05, 0.1, 0.2, 0.4, 0.8), unit="sigma of positions (m)"
    ),
    "missing-history": Corruption(
        title="missing history", apply=missing_history, amounts=(8, 5, 3, 2, 1), unit="steps left of 11"
    ),
    "missing-map": Corruption(title="missing map", apply=missing_map, amounts=(0.2, 0.4, 0.6, 0.8, 1.0), unit="share lost"),
}


def corrupt(scene: Scene, name: str, severity: int, seed: int) -> Scene:
    """The scene as a worse sensor, tracker or map would have given it.

    Args:
        scene: what is degraded; it stays as it is.
        name: one of `CORRUPTIONS`.
        severity: one of `SEVERITIES`, or 0 for the scene itself.
        seed: of the random numbers, together with the scene's id and the name.

    Raises:
        ValueError: no such corruption or severity, or one of LiDAR on a scene without.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"no corruption {name!r}; there are {', '.join(CORRUPTIONS)}")
    if severity == 0:
        return scene
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of 0..{SEVERITIES[-1]}, is {severity}")
    kind = CORRUPTIONS[name]
    return kind.apply(scene, kind.amounts[severity - 1], generator(seed, scene.scenario_id, name))
