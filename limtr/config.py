"""Configuration of the predictor: what it reads (`ViewConfig`) and what it is (`ModelConfig`), with the presets."""

from __future__ import annotations

from dataclasses import dataclass

from limtr.scene import LIDAR_FEATURES, NUM_HISTORY_STEPS


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How `limtr.agent_view` turns a SceneBatch into an AgentBatch."""

    num_polylines: int = 768
    """Nearest polylines kept per centre agent."""
    polyline_center_offset_m: tuple[float, float] = (30.0, 0.0)
    """Point in the centre agent's frame from which "nearest" is measured."""
    use_lidar: bool = False
    num_lidar_points: int = 512
    """LiDAR points used per frame (shards hold more)."""
    num_lidar_frames: int = NUM_HISTORY_STEPS
    """LiDAR frames used, spread evenly over the history and ending at the current step."""
    lidar_features: tuple[str, ...] = ("intensity",)
    """Point features beside x, y, z, out of `limtr.scene.LIDAR_FEATURES`."""
    lidar_class_channels: bool = True
    """Append three channels that tell the centre agent's class to every point."""
    traffic_signals: bool = False
    """Append the one-hot traffic-light state of the lane (9 channels) to polyline points."""
    reference_pedestrian_channel: bool = False
    """MTR's quirk: the pedestrian channel of the type one-hot is always 0."""
    reference_gap_acceleration: bool = False
    """MTR's quirk: accelerations across validity gaps count an invalid step as velocity 0 (by default they are 0)."""

    def __post_init__(self) -> None:
        """Validate."""
        if self.num_polylines < 1:
            raise ValueError(f"num_polylines must be at least 1, is {self.num_polylines}")
        if not 1 <= self.num_lidar_frames <= NUM_HISTORY_STEPS:
            raise ValueError(f"num_lidar_frames must be 1..{NUM_HISTORY_STEPS}, is {self.num_lidar_frames}")
        if self.num_lidar_points < 1:
            raise ValueError(f"num_lidar_points must be at least 1, is {self.num_lidar_points}")
        unknown = [name for name in self.lidar_features if name not in LIDAR_FEATURES]
        if unknown:
            raise ValueError(f"lidar_features must be out of {LIDAR_FEATURES}, has {unknown}")

    @property
    def num_polyline_channels(self) -> int:
        """F of `AgentBatch.polylines`."""
        return 9 + (9 if self.traffic_signals else 0)

    @property
    def num_lidar_channels(self) -> int:
        """F of `AgentBatch.lidar_points`."""
        return 3 + len(self.lidar_features) + (3 if self.lidar_class_channels else 0)
