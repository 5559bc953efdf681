"""Checkpoints of the reference code (MTR, LiMTR) to ours and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from limtr.config import ModelConfig
from limtr.model_files import require_same_architecture
from limtr.reference_config import reference_config
from limtr.scene import PREDICTED_TYPES

__all__ = ["from_reference", "is_reference_state", "our_names", "reference_config", "to_reference"]

State = dict[str, torch.Tensor]

_CONTEXT, _DECODER = "context_encoder.", "motion_decoder."
# Longer prefixes first, so that the first match is the right one, in both directions.
_PREFIXES = (
    (_CONTEXT + "agent_polyline_encoder.out_mlps.", "encoder.agent_encoder.out_mlps."),
    (_CONTEXT + "agent_polyline_encoder.", "encoder.agent_encoder.points."),
    (_CONTEXT + "map_polyline_encoder.out_mlps.", "encoder.polyline_encoder.out_mlps."),
    (_CONTEXT + "map_polyline_encoder.", "encoder.polyline_encoder.points."),
    (_CONTEXT + "lidar_pointnet_encoder.point_compression.", "encoder.lidar_encoder.points."),
    (_CONTEXT + "lidar_pointnet_encoder.time_compression.out_mlps.", "encoder.lidar_encoder.time.out_mlps."),
    (_CONTEXT + "lidar_pointnet_encoder.time_compression.pre_mlps.", "encoder.lidar_encoder.time.points.pre_mlps."),
    (_CONTEXT + "lidar_pointnet_encoder.time_compression.mlps.", "encoder.lidar_encoder.time.points.mlps."),
    (_CONTEXT + "lidar_pointnet_encoder.time_compression.", "encoder.lidar_encoder.time.layers."),
    (_CONTEXT + "self_attn_layers.", "encoder.layers."),
    (_DECODER + "in_proj_center_obj.", "decoder.center_projection."),
    (_DECODER + "in_proj_obj.", "decoder.agent_projection."),
    (_DECODER + "in_proj_map.", "decoder.map_projection."),
    (_DECODER + "obj_decoder_layers.", "decoder.agent_layers."),
    (_DECODER + "map_decoder_layers.", "decoder.map_layers."),
    (_DECODER + "map_query_content_mlps.", "decoder.map_content_projections."),
    (_DECODER + "map_query_embed_mlps.", "decoder.map_embedding_projection."),
    (_DECODER + "obj_pos_encoding_layer.", "decoder.dense_future.position_mlp."),
    (_DECODER + "dense_future_head.", "decoder.dense_future.head."),
    (_DECODER + "future_traj_mlps.", "decoder.dense_future.trajectory_mlp."),
    (_DECODER + "traj_fusion_mlps.", "decoder.dense_future.fusion_mlp."),
    (_DECODER + "intention_query_mlps.", "decoder.intention_mlp."),
    (_DECODER + "query_feature_fusion_layers.", "decoder.fusions."),
    (_DECODER + "motion_reg_heads.", "decoder.regression_heads."),
    (_DECODER + "motion_cls_heads.", "decoder.score_heads."),
)
_UNTRAINED = re.compile(r"motion_decoder\.(obj|map)_decoder_layers\.([1-9]\d*)\.ca_qpos_proj\.(weight|bias)")
_INTENTIONS = tuple(f"{_DECODER}intention_points_TYPE_{kind.name}" for kind in PREDICTED_TYPES)


def is_reference_state(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether the names are the reference's."""
    return any(name.removeprefix("module.").startswith((_CONTEXT, _DECODER)) for name in state)


def our_names(state: Mapping[str, torch.Tensor]) -> tuple[State, State]:
    """Rename a reference state dict.

    Args:
        state: names of MTR or LiMTR, with or without the `module.` of distributed training.

    Returns:
        our state dict (LiMTR's intention points as one tensor), and by the reference's own names the tensors that have no place
        in it: those that the reference never trains, and LiMTR's intention points (which say that it had them).

    Raises:
        ValueError: a name that neither model has.
    """
    plain = {name.removeprefix("module."): value for name, value in state.items()}
    ours: State = {}
    kept: State = {}
    for name, value in plain.items():
        if _UNTRAINED.fullmatch(name) or name in _INTENTIONS:
            kept[name] = value
        else:
            ours[_rename(name, _PREFIXES)] = value
    known = [plain[name] for name in _INTENTIONS if name in plain]
    if known:
        # A model of some classes only (OBJECT_TYPE) never looks at the points of the others.
        ours["intention_points"] = torch.stack([plain.get(name, torch.zeros_like(known[0])) for name in _INTENTIONS])
    return ours, kept


def from_reference(state: Mapping[str, torch.Tensor], config: ModelConfig) -> State:
    """A reference state dict as ours, checked against the architecture of `config`.

    MTR's has no intention points (they live in a file of their own): set them with `MotionPredictor.set_intentions`.

    Raises:
        ValueError: names or shapes do not fit; the message names the first.
    """
    ours, _ = our_names(state)
    require_same_architecture(_expected(config), ours, "reference state", optional=["intention_points"])
    return ours


def to_reference(
    ours: Mapping[str, torch.Tensor],
    config: ModelConfig,
    kept: Mapping[str, torch.Tensor] | None = None,
) -> State:
    """Our state dict with the reference's names and shapes, every entry of it.

    Args:
        ours: state dict of a `MotionPredictor`.
        config: its configuration.
        kept: what `our_names` gave beside our state (`MotionPredictor.kept`); zeros stand in for tensors that are not there.
            LiMTR's intention-point buffers are written if they are in it (then of the same classes), or if the model reads
            LiDAR.
    """
    kept = {} if kept is None else kept
    renamed = {
        _rename(name, [(new, old) for old, new in _PREFIXES]): value
        for name, value in ours.items()
        if name != "intention_points"
    }
    for index in range(1, config.decoder.num_layers):
        for branch in ("obj", "map"):
            for part in ("weight", "bias"):
                name = f"{_DECODER}{branch}_decoder_layers.{index}.ca_qpos_proj.{part}"
                like = renamed[name.replace("ca_qpos_proj", "ca_kpos_proj")]
                renamed[name] = kept.get(name, torch.zeros_like(like))
    known = [name for name in _INTENTIONS if name in kept]
    if "intention_points" in ours and (config.encoder.lidar is not None or known):
        points = dict(zip(_INTENTIONS, ours["intention_points"], strict=True))
        renamed |= {name: points[name] for name in known or _INTENTIONS}
    return renamed


def _rename(name: str, prefixes: Any) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return str(new) + name[len(old) :]
    raise ValueError(f"{name}: no such tensor in MTR or LiMTR; the state dict is of another model")


def _expected(config: ModelConfig) -> State:
    from limtr.predictor import MotionPredictor

    with torch.device("meta"):
        return MotionPredictor(config).state_dict()
