"""Configuration of the predictor: what it reads (`ViewConfig`) and what it is (`ModelConfig`), with the presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from limtr.scene import LIDAR_FEATURES, NUM_FUTURE_STEPS, NUM_HISTORY_STEPS

AttentionPath = Literal["auto", "dense", "gathered"]


def _at_least(minimum: int, **values: int) -> None:
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, is {value}")


def _check_attention(where: str, dim: int, num_heads: int, dropout: float) -> None:
    if num_heads < 1 or dim < 1 or dim % num_heads or dim % 4:
        raise ValueError(f"{where}: dim ({dim}) must be a multiple of 4 and of num_heads ({num_heads})")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"{where}: dropout must be in [0, 1), is {dropout}")


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
    def lidar_points_to_load(self) -> int:
        """What `limtr.batch.collate` needs: points per frame, 0 for a model without LiDAR."""
        return self.num_lidar_points if self.use_lidar else 0

    @property
    def num_polyline_channels(self) -> int:
        """F of `AgentBatch.polylines`."""
        return 9 + (9 if self.traffic_signals else 0)

    @property
    def num_lidar_channels(self) -> int:
        """F of `AgentBatch.lidar_points`."""
        return 3 + len(self.lidar_features) + (3 if self.lidar_class_channels else 0)


@dataclass(frozen=True, kw_only=True)
class PolylineEncoderConfig:
    """A PointNet over the valid points of a polyline: `num_pre_layers`, max, concatenate, the other layers, max."""

    hidden_dim: int
    num_layers: int
    """Layers in all, those before the first pooling included."""
    num_pre_layers: int = 1

    def __post_init__(self) -> None:
        """Validate."""
        _at_least(1, hidden_dim=self.hidden_dim, num_pre_layers=self.num_pre_layers)
        if self.num_layers <= self.num_pre_layers:
            raise ValueError(f"num_layers must be above num_pre_layers ({self.num_pre_layers}), is {self.num_layers}")


@dataclass(frozen=True, kw_only=True)
class PointStageConfig:
    """One PointNet stage of the LiDAR encoder: layers per element, pooling, layers after it, pooling."""

    num_pre_layers: int
    pre_dim: int
    num_layers: int
    """Layers after the first pooling."""
    dim: int
    concat_pooled: bool = True
    """Concatenate the pooled feature to every element (else the later layers see the elements alone)."""

    def __post_init__(self) -> None:
        """Validate."""
        _at_least(1, num_pre_layers=self.num_pre_layers, pre_dim=self.pre_dim, num_layers=self.num_layers, dim=self.dim)


@dataclass(frozen=True, kw_only=True)
class TimeStageConfig:
    """The linear time stage of the LiDAR encoder: frames are concatenated, then `num_layers` of `dim` channels."""

    num_layers: int
    dim: int

    def __post_init__(self) -> None:
        """Validate."""
        _at_least(1, num_layers=self.num_layers, dim=self.dim)


@dataclass(frozen=True, kw_only=True)
class LidarEncoderConfig:
    """LiDAR points of 11 frames to one token; the kind of `time` tells LiMTR's "pointnet-linear" from "double-pointnet"."""

    points: PointStageConfig
    linear_time: TimeStageConfig | None = None
    """"pointnet-linear": frames concatenated (the one LiMTR uses)."""
    pooled_time: PointStageConfig | None = None
    """"double-pointnet": a second PointNet over the frames that have points."""
    pooling: Literal["max", "average"] = "max"
    reference_average: bool = False
    """LiMTR's quirk: "average" divides by all points, padding included."""

    def __post_init__(self) -> None:
        """Validate."""
        if (self.linear_time is None) == (self.pooled_time is None):
            raise ValueError("exactly one of linear_time (pointnet-linear) and pooled_time (double-pointnet) must be given")
        if self.pooling not in ("max", "average"):
            raise ValueError(f"pooling must be 'max' or 'average', is {self.pooling!r}")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Agents, polylines and LiDAR to tokens that attend to their nearest neighbours."""

    agents: PolylineEncoderConfig = PolylineEncoderConfig(hidden_dim=256, num_layers=3)
    polylines: PolylineEncoderConfig = PolylineEncoderConfig(hidden_dim=64, num_layers=5, num_pre_layers=3)
    lidar: LidarEncoderConfig | None = None
    dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    num_neighbors: int = 16
    """Nearest tokens that a token attends to, itself included."""
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Validate."""
        _at_least(1, num_layers=self.num_layers, num_neighbors=self.num_neighbors)
        _check_attention("encoder", self.dim, self.num_heads, self.dropout)


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Motion queries that attend to agents and to dynamically collected polylines."""

    dim: int = 512
    map_dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    dropout: float = 0.1
    num_queries: int = 64
    """Intention points per class."""
    num_base_polylines: int = 256
    """Polylines nearest to `map_center_m` that every query sees."""
    num_waypoint_polylines: int = 128
    """Polylines nearest to a query's own waypoints."""
    map_center_m: tuple[float, float] = (30.0, 0.0)
    lidar_with_center: bool = False
    """Concatenate the LiDAR token to the centre agent's feature."""
    lidar_with_agents: bool = False
    """Let the queries attend to the LiDAR token among the agents."""
    kinematic_paths: bool = False
    """Predict offsets from paths that need no learning (`limtr.kinematics`) instead of positions: of each query from the
    path that begins with the agent's velocity and ends at the intention point, in the dense future from constant velocity.
    Not in MTR, where the network learns all of it from much data."""

    def __post_init__(self) -> None:
        """Validate."""
        _at_least(1, num_layers=self.num_layers, num_queries=self.num_queries)
        _at_least(0, num_base_polylines=self.num_base_polylines, num_waypoint_polylines=self.num_waypoint_polylines)
        if self.num_base_polylines + self.num_waypoint_polylines < 1:
            raise ValueError("num_base_polylines and num_waypoint_polylines must not both be 0")
        _check_attention("decoder", self.dim, self.num_heads, self.dropout)
        _check_attention("decoder map branch", self.map_dim, self.num_heads, self.dropout)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and variants of the training loss."""

    regression_weight: float = 1.0
    velocity_weight: float = 0.5
    classification_weight: float = 1.0
    dense_weight: float = 1.0
    classification_reduction: Literal["mean", "sum"] = "mean"
    """Over centre agents; "sum" is MTR's quirk: the weight of the classification then grows with the batch."""
    label_smoothing: float = 0.0
    """Share of the target probability taken from the positive query."""
    label_smoothing_neighbors: int = 0
    """Spread that share over this many intention points nearest to the true end; 0 spreads it over all."""
    class_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Weight of vehicles, pedestrians, cyclists as centre agents."""
    reference_unknown_futures: bool = False
    """MTR's quirk: centre agents without any valid future step are taught to stand still; by default they are left out."""
    lidar_side_weight: float = 0.0
    """Above 0, a linear head has to tell from the LiDAR feature alone how far the centre agent goes to the side in the coming
    3 s: small trainings learn to read points sooner from that than from what the decoder makes of them (docs/results.md)."""
    reference_unseen_agents: bool = False
    """MTR's quirk: agents with a future but no valid history step count in the dense loss, though nothing predicts them."""

    def __post_init__(self) -> None:
        """Validate."""
        if self.classification_reduction not in ("mean", "sum"):
            raise ValueError(f"classification_reduction must be 'mean' or 'sum', is {self.classification_reduction!r}")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1), is {self.label_smoothing}")
        _at_least(0, label_smoothing_neighbors=self.label_smoothing_neighbors)
        weights = (self.regression_weight, self.velocity_weight, self.classification_weight, self.dense_weight,
                   self.lidar_side_weight)  # fmt: skip
        if min(*weights, *self.class_weights) < 0 or len(self.class_weights) != 3:
            raise ValueError(f"loss weights must not be negative, are {weights} and {self.class_weights}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that `limtr.predictor.MotionPredictor` is made from."""

    view: ViewConfig = ViewConfig()
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    loss: LossConfig = LossConfig()
    num_agent_channels: int = 29
    """F of `AgentBatch.agent_history`."""
    num_future_steps: int = NUM_FUTURE_STEPS
    num_modes: int = 6
    """Modes kept after non-maximum suppression."""
    nms_distance_m: tuple[float, float, float] = (2.5, 2.5, 2.5)
    """End points nearer than this are one mode: vehicles, pedestrians, cyclists."""
    mode_averaging: int = 0
    """Rounds in which a mode moves to the mean of the queries that are nearest to it; 0: modes are queries (MTR)."""
    mode_scores: Literal["query", "mass", "risk"] = "query"
    """A mode's score: the probability of its own query (MTR), or of all queries that are nearest to it ("mass"); with "risk"
    the largest of these goes to the mode with the least expected displacement."""
    attention: AttentionPath = "auto"
    """How sparse attention is computed; the results are the same. "dense" masks all weights, "gathered" computes the allowed
    ones alone; "auto" does the latter among the encoder's neighbours on a CPU, where that is several times faster."""

    def __post_init__(self) -> None:
        """Validate."""
        _at_least(
            1, num_agent_channels=self.num_agent_channels, num_future_steps=self.num_future_steps, num_modes=self.num_modes
        )
        if self.num_modes > self.decoder.num_queries:
            raise ValueError(f"num_modes ({self.num_modes}) must not exceed decoder.num_queries ({self.decoder.num_queries})")
        if self.decoder.kinematic_paths and self.num_agent_channels != 29:
            raise ValueError(f"decoder.kinematic_paths needs 29 channels, num_agent_channels is {self.num_agent_channels}")
        if len(self.nms_distance_m) != 3 or min(self.nms_distance_m) < 0:
            raise ValueError(f"nms_distance_m must be three distances of at least 0, is {self.nms_distance_m}")
        if self.mode_scores not in ("query", "mass", "risk"):
            raise ValueError(f"mode_scores must be 'query', 'mass' or 'risk', is {self.mode_scores!r}")
        _at_least(0, mode_averaging=self.mode_averaging)
        if self.mode_averaging and self.mode_scores == "query":
            raise ValueError("mode_averaging makes modes that are no queries: score them by 'mass' or 'risk'")
        if self.attention not in ("auto", "dense", "gathered"):
            raise ValueError(f"attention must be 'auto', 'dense' or 'gathered', is {self.attention!r}")
        if self.view.use_lidar != (self.encoder.lidar is not None):
            raise ValueError(
                f"view.use_lidar is {self.view.use_lidar} but encoder.lidar is {self.encoder.lidar}: give both or neither"
            )
        if self.encoder.lidar is None and (self.decoder.lidar_with_center or self.decoder.lidar_with_agents):
            raise ValueError("decoder.lidar_with_center and lidar_with_agents need encoder.lidar")
        if self.encoder.lidar is None and self.loss.lidar_side_weight:
            raise ValueError("loss.lidar_side_weight needs encoder.lidar")

    def without_lidar(self) -> ModelConfig:
        """The same model with no LiDAR branch."""
        return replace(
            self,
            view=replace(self.view, use_lidar=False),
            encoder=replace(self.encoder, lidar=None),
            decoder=replace(self.decoder, lidar_with_center=False, lidar_with_agents=False),
            loss=replace(self.loss, lidar_side_weight=0.0),
        )


def mtr() -> ModelConfig:
    """MTR as published for WOMD (Shi et al., NeurIPS 2022), with the classification loss averaged over agents as LiMTR does."""
    return ModelConfig(loss=LossConfig(classification_weight=50.0))


def limtr() -> ModelConfig:
    """LiMTR's full model: MTR with a 12-layer LiDAR PointNet fused at three places."""
    return ModelConfig(
        view=ViewConfig(use_lidar=True),
        encoder=EncoderConfig(
            lidar=LidarEncoderConfig(
                points=PointStageConfig(num_pre_layers=12, pre_dim=256, num_layers=12, dim=512),
                linear_time=TimeStageConfig(num_layers=12, dim=1024),
            )
        ),
        decoder=DecoderConfig(lidar_with_center=True, lidar_with_agents=True),
        loss=LossConfig(classification_weight=50.0),
    )


def tiny() -> ModelConfig:
    """A LiMTR small enough to be trained on a CPU in minutes."""
    return ModelConfig(
        view=ViewConfig(num_polylines=64, use_lidar=True, num_lidar_points=64),
        encoder=EncoderConfig(
            agents=PolylineEncoderConfig(hidden_dim=64, num_layers=3),
            polylines=PolylineEncoderConfig(hidden_dim=32, num_layers=3),
            lidar=LidarEncoderConfig(
                points=PointStageConfig(num_pre_layers=2, pre_dim=32, num_layers=1, dim=48),
                linear_time=TimeStageConfig(num_layers=1, dim=96),
            ),
            dim=64,
            num_layers=2,
            num_heads=4,
            dropout=0.0,
        ),
        decoder=DecoderConfig(
            dim=64,
            map_dim=64,
            num_layers=2,
            num_heads=4,
            dropout=0.0,
            num_base_polylines=32,
            num_waypoint_polylines=16,
            lidar_with_center=True,
            lidar_with_agents=True,
            kinematic_paths=True,
        ),
        loss=LossConfig(classification_weight=100.0, lidar_side_weight=100.0),
        mode_averaging=2,
        mode_scores="risk",
    )
