"""Configurations of the reference code (MTR, LiMTR) to ours, quirk by quirk."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from limtr.config import (
    DecoderConfig,
    EncoderConfig,
    LidarEncoderConfig,
    LossConfig,
    ModelConfig,
    PointStageConfig,
    PolylineEncoderConfig,
    TimeStageConfig,
    ViewConfig,
)
from limtr.scene import LIDAR_FEATURES, PREDICTED_TYPES

_NEIGHBOR_SMOOTHING = 0.1
"""Share that LiMTR spreads over the nearest intention points; fixed in its code."""


def reference_config(meta: Mapping[str, Any]) -> ModelConfig:
    """Our configuration, in reference mode, from the reference's own keys.

    Args:
        meta: `context_encoder` and `motion_decoder` as in MTR's YAML files and LiMTR's Hydra files, and `model`, "mtr" or
            "limtr" (default: told from the LiDAR keys), which chooses the quirks of the loss.

    Raises:
        ValueError: a key is missing, or asks for something the reference itself cannot do.
    """
    try:
        context, decoder = dict(meta["context_encoder"]), dict(meta["motion_decoder"])
        _warn_of_ignored("context_encoder", context)
        _warn_of_ignored("motion_decoder", decoder)
        limtr_like = str(meta.get("model", "limtr" if "USE_LIDAR_POINTS" in context else "mtr")).lower() != "mtr"
        return _Reader(context, decoder, limtr_like).config(int(_num_queries(meta)))
    except KeyError as error:
        raise ValueError(
            f"the reference configuration lacks {error}; expected the keys of MTR's or LiMTR's model files"
        ) from error


_UNDERSTOOD = {
    "context_encoder": (
        "NAME NUM_OF_ATTN_NEIGHBORS NUM_INPUT_ATTR_AGENT NUM_INPUT_ATTR_MAP NUM_CHANNEL_IN_MLP_AGENT NUM_CHANNEL_IN_MLP_MAP "
        "NUM_LAYER_IN_MLP_AGENT NUM_LAYER_IN_MLP_MAP NUM_LAYER_IN_PRE_MLP_MAP D_MODEL NUM_ATTN_LAYERS NUM_ATTN_HEAD "
        "DROPOUT_OF_ATTN USE_LOCAL_ATTN USE_LIDAR_POINTS INCLUDE_LIDAR_FEATURES LP_ADD_ONEHOT_CLASS REGULIZAR_WEIGHT_POINTNET "
        "lidar_encoder lidar_enc_class double_poly lidar_in_k"
    ),
    "motion_decoder": (
        "NAME OBJECT_TYPE CENTER_OFFSET_OF_MAP NUM_FUTURE_FRAMES NUM_MOTION_MODES INTENTION_POINTS_FILE D_MODEL "
        "NUM_DECODER_LAYERS NUM_ATTN_HEAD MAP_D_MODEL DROPOUT_OF_ATTN NUM_BASE_MAP_POLYLINES NUM_WAYPOINT_MAP_POLYLINES "
        "LOSS_WEIGHTS NMS_DIST_THRESH CONCAT_LIDAR_CENTER CONCAT_LIDAR_AGENTS ONLY_CENTER_OBJ USE_PLACE_HOLDER "
        "confidence_label_smoothing confidence_knn_smoothing class_weights"
    ),
}


def _warn_of_ignored(section: str, keys: Mapping[str, Any]) -> None:
    ignored = sorted(
        name for name, value in keys.items() if name not in _UNDERSTOOD[section].split() and value not in (None, False)
    )
    if ignored:
        warnings.warn(f"keys of {section} that have no counterpart here are ignored: {ignored}", stacklevel=3)


class _Reader:
    """Reads the reference's keys."""

    def __init__(self, context: dict[str, Any], decoder: dict[str, Any], limtr_like: bool) -> None:
        self.context, self.decoder, self.limtr_like = context, decoder, limtr_like

    def config(self, num_queries: int) -> ModelConfig:
        context, decoder = self.context, self.decoder
        if not context.get("USE_LOCAL_ATTN", True):
            raise ValueError(
                "USE_LOCAL_ATTN is off: the reference's global attention does not run, so there is nothing to match"
            )
        if decoder.get("ONLY_CENTER_OBJ", False):
            raise ValueError("ONLY_CENTER_OBJ (an ablation without cross-attention) is not supported")
        if decoder.get("USE_PLACE_HOLDER", False):
            raise ValueError("USE_PLACE_HOLDER is on: the reference has the key but not the code, so there is nothing to match")
        lidar = self._lidar() if context.get("USE_LIDAR_POINTS", False) else None
        width = int(context["D_MODEL"])
        return ModelConfig(
            view=self._view(lidar is not None),
            encoder=EncoderConfig(
                agents=PolylineEncoderConfig(
                    hidden_dim=int(context["NUM_CHANNEL_IN_MLP_AGENT"]), num_layers=int(context["NUM_LAYER_IN_MLP_AGENT"])
                ),
                polylines=PolylineEncoderConfig(
                    hidden_dim=int(context["NUM_CHANNEL_IN_MLP_MAP"]),
                    num_layers=int(context["NUM_LAYER_IN_MLP_MAP"]),
                    num_pre_layers=int(context["NUM_LAYER_IN_PRE_MLP_MAP"]),
                ),
                lidar=lidar,
                dim=width,
                num_layers=int(context["NUM_ATTN_LAYERS"]),
                num_heads=int(context["NUM_ATTN_HEAD"]),
                num_neighbors=int(context["NUM_OF_ATTN_NEIGHBORS"]),
                dropout=float(context.get("DROPOUT_OF_ATTN", 0.1)),
            ),
            decoder=DecoderConfig(
                dim=int(decoder["D_MODEL"]),
                map_dim=int(decoder.get("MAP_D_MODEL", decoder["D_MODEL"])),
                num_layers=int(decoder["NUM_DECODER_LAYERS"]),
                num_heads=int(decoder["NUM_ATTN_HEAD"]),
                dropout=float(decoder.get("DROPOUT_OF_ATTN", 0.1)),
                num_queries=num_queries,
                num_base_polylines=int(decoder["NUM_BASE_MAP_POLYLINES"]),
                num_waypoint_polylines=int(decoder["NUM_WAYPOINT_MAP_POLYLINES"]),
                map_center_m=self._center(),
                lidar_with_center=lidar is not None and bool(decoder.get("CONCAT_LIDAR_CENTER", False)),
                lidar_with_agents=lidar is not None and bool(decoder.get("CONCAT_LIDAR_AGENTS", False)),
            ),
            loss=self._loss(),
            num_agent_channels=int(context.get("NUM_INPUT_ATTR_AGENT", 29)),
            num_future_steps=int(decoder["NUM_FUTURE_FRAMES"]),
            num_modes=int(decoder["NUM_MOTION_MODES"]),
            nms_distance_m=self._nms(),
        )

    def _center(self) -> tuple[float, float]:
        x, y = self.decoder.get("CENTER_OFFSET_OF_MAP", (30.0, 0.0))
        return float(x), float(y)

    def _nms(self) -> tuple[float, float, float]:
        value = self.decoder.get("NMS_DIST_THRESH", 2.5)
        if isinstance(value, Mapping):
            value = [value.get(f"TYPE_{kind.name}", 2.5) for kind in PREDICTED_TYPES]
        first, second, third = value if isinstance(value, (list, tuple)) else (value,) * 3
        return float(first), float(second), float(third)

    def _loss(self) -> LossConfig:
        weights = self.decoder.get("LOSS_WEIGHTS", {})
        smoothing, neighbors = self._smoothing()
        vehicle, pedestrian, cyclist = self.decoder.get("class_weights") or (1.0, 1.0, 1.0)
        # LiMTR's files misspell `reg` as `red`, which its code never reads: the default counts.
        return LossConfig(
            regression_weight=float(weights.get("reg", 1.0)),
            velocity_weight=float(weights.get("vel", 0.2)),
            classification_weight=float(weights.get("cls", 1.0)),
            classification_reduction="mean" if self.limtr_like else "sum",
            label_smoothing=smoothing,
            label_smoothing_neighbors=neighbors,
            class_weights=(float(vehicle), float(pedestrian), float(cyclist)),
            reference_unknown_futures=True,
            reference_unseen_agents=True,
        )

    def _smoothing(self) -> tuple[float, int]:
        """Share and neighbours of LiMTR's two ways of label smoothing."""
        share = float(self.decoder.get("confidence_label_smoothing") or 0.0)
        neighbors = int(self.decoder.get("confidence_knn_smoothing") or 0)
        if share and neighbors:
            raise ValueError("confidence_label_smoothing and confidence_knn_smoothing are both set: choose one")
        return (_NEIGHBOR_SMOOTHING, neighbors) if neighbors else (share, 0)

    def _view(self, use_lidar: bool) -> ViewConfig:
        context = self.context
        map_channels = int(context.get("NUM_INPUT_ATTR_MAP", 9))
        if map_channels != 9:
            raise ValueError(f"NUM_INPUT_ATTR_MAP must be 9, is {map_channels}")
        if not use_lidar:
            return ViewConfig(reference_pedestrian_channel=True, reference_gap_acceleration=True)
        view = ViewConfig(
            use_lidar=True,
            num_lidar_frames=int(context["double_poly"]["nr_timestamps"]),
            lidar_features=tuple(LIDAR_FEATURES[index] for index in context.get("INCLUDE_LIDAR_FEATURES") or ()),
            lidar_class_channels=bool(context.get("LP_ADD_ONEHOT_CLASS", False)),
            reference_pedestrian_channel=True,
            reference_gap_acceleration=True,
        )
        channels = int(context.get("lidar_in_k", view.num_lidar_channels))
        if channels != view.num_lidar_channels:
            raise ValueError(
                f"lidar_in_k is {channels}, but INCLUDE_LIDAR_FEATURES and LP_ADD_ONEHOT_CLASS make {view.num_lidar_channels}"
            )
        return view

    def _lidar(self) -> LidarEncoderConfig:
        context = self.context
        if context.get("lidar_enc_class", False):
            raise ValueError("lidar_enc_class (an encoder per class) is not implemented in the reference either")
        kind, settings = context.get("lidar_encoder", "pointnet-linear"), context["double_poly"]
        if settings.get("without_bnorm", False):
            raise ValueError("double_poly.without_bnorm (a LiDAR encoder without batch norm) is not supported")
        part1, part2 = (_with_layers(settings[part], settings.get("layers_per_block")) for part in ("part1", "part2"))
        pooling = settings.get("pooling", "max")
        points = _point_stage(part1)
        if kind == "pointnet-linear":
            time = TimeStageConfig(num_layers=int(part2["num_bet_layers"]), dim=int(part2["dim_bet_layers"]))
            return LidarEncoderConfig(points=points, linear_time=time, pooling=pooling, reference_average=True)
        if kind == "double-pointnet":
            return LidarEncoderConfig(points=points, pooled_time=_point_stage(part2), pooling=pooling, reference_average=True)
        raise ValueError(f"lidar_encoder must be 'pointnet-linear' or 'double-pointnet', is {kind!r}")


def _with_layers(part: Mapping[str, Any], layers: int | None) -> Mapping[str, Any]:
    # LiMTR's sweep over depths: one number in place of all four.
    return part if layers is None else {**part, "num_pre_layers": layers, "num_bet_layers": layers}


def _point_stage(part: Mapping[str, Any]) -> PointStageConfig:
    return PointStageConfig(
        num_pre_layers=int(part["num_pre_layers"]),
        pre_dim=int(part["dim_pre_layers"]),
        num_layers=int(part["num_bet_layers"]),
        dim=int(part["dim_bet_layers"]),
        concat_pooled=bool(part.get("add_global", True)),
    )


def _num_queries(meta: Mapping[str, Any]) -> int:
    # Not a key of the reference: the intention points' file says it there.
    return int(meta.get("num_queries", 64))
