"""Configurations that no golden file has, against a plain restatement of the reference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from limtr.reference import our_names, to_reference
from limtr.verify_model import build_model, compare
from tests.limtr.plain_reference import golden_arrays

NUM_STEPS = 8
CONTEXT = {
    "NUM_OF_ATTN_NEIGHBORS": 4, "NUM_INPUT_ATTR_AGENT": 29, "NUM_INPUT_ATTR_MAP": 9, "NUM_CHANNEL_IN_MLP_AGENT": 6,
    "NUM_CHANNEL_IN_MLP_MAP": 5, "NUM_LAYER_IN_MLP_AGENT": 2, "NUM_LAYER_IN_MLP_MAP": 4, "NUM_LAYER_IN_PRE_MLP_MAP": 2,
    "D_MODEL": 12, "NUM_ATTN_LAYERS": 1, "NUM_ATTN_HEAD": 3,
}  # fmt: skip
DECODER = {
    "CENTER_OFFSET_OF_MAP": [20.0, -3.0], "NUM_FUTURE_FRAMES": NUM_STEPS, "NUM_MOTION_MODES": 3, "D_MODEL": 16,
    "NUM_DECODER_LAYERS": 2, "NUM_ATTN_HEAD": 2, "MAP_D_MODEL": 8, "NUM_BASE_MAP_POLYLINES": 2,
    "NUM_WAYPOINT_MAP_POLYLINES": 2, "LOSS_WEIGHTS": {"cls": 2.0, "reg": 0.7, "vel": 0.5}, "NMS_DIST_THRESH": 6.0,
}  # fmt: skip
EVERYWHERE = {"CONCAT_LIDAR_CENTER": True, "CONCAT_LIDAR_AGENTS": True}


def lidar(
    *, features: list[int] | None, one_hot: bool = True, frames: int = 3, pooling: str = "max", pooled_time: bool = False,
    beside: tuple[bool, bool] = (True, True), layers: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    stage = {"num_pre_layers": 1, "dim_pre_layers": 5, "num_bet_layers": 2, "dim_bet_layers": 7}
    return {
        "USE_LIDAR_POINTS": True, "INCLUDE_LIDAR_FEATURES": features, "LP_ADD_ONEHOT_CLASS": one_hot,
        "lidar_encoder": "double-pointnet" if pooled_time else "pointnet-linear",
        "double_poly": {"nr_timestamps": frames, "pooling": pooling, "layers_per_block": layers,
                        "part1": stage | {"add_global": beside[0]}, "part2": stage | {"add_global": beside[1]}},
    }  # fmt: skip


def random_golden(
    context: dict[str, Any], decoder: dict[str, Any], *, model: str, unknown_future: bool = False,
    kinds: Sequence[int] = (2, 0, 1),
) -> dict[str, np.ndarray[Any, Any]]:  # fmt: skip
    """A golden file of a random model on a random batch: an unseen agent, an empty polyline, one agent without points."""
    torch.manual_seed(3)
    context, decoder = CONTEXT | context, DECODER | decoder
    rows, agents, polylines, points, queries = 3, 4, 6, 3, 6
    channels = 3 + len(context.get("INCLUDE_LIDAR_FEATURES") or ()) + 3 * bool(context.get("LP_ADD_ONEHOT_CLASS"))
    center = torch.tensor([0, 3, 1])
    each = torch.arange(rows)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64)

    history_mask = torch.rand(rows, agents, 11) < 0.7
    history_mask[each, center, -1] = True
    history_mask[0, 2] = False
    polyline_mask = torch.rand(rows, polylines, points) < 0.7
    polyline_mask[:, 1:, 0], polyline_mask[0, 0] = True, False
    width = 4 if model == "mtr" else 5
    future_mask = (torch.rand(rows, agents, NUM_STEPS) < 0.6).double()
    future_mask[1, 0], future_mask[0, 2, 3] = 0, 1
    own_mask = future_mask[each, center] * (torch.arange(rows) > 0 if unknown_future else torch.ones(rows))[:, None]
    steps = torch.arange(NUM_STEPS)
    batch = {
        "obj_trajs": 3 * normal(rows, agents, 11, 29) * history_mask[..., None],
        "obj_trajs_mask": history_mask,
        "obj_trajs_last_pos": 9 * normal(rows, agents, 3) * history_mask.any(-1, keepdim=True),
        "map_polylines": normal(rows, polylines, points, 9) * polyline_mask[..., None],
        "map_polylines_mask": polyline_mask,
        "map_polylines_center": 20 * normal(rows, polylines, 3) * polyline_mask.any(-1, keepdim=True),
        "track_index_to_predict": center,
        "obj_trajs_future_state": 6 * normal(rows, agents, NUM_STEPS, width) * future_mask[..., None],
        "obj_trajs_future_mask": future_mask,
        "center_gt_trajs": 9 * normal(rows, NUM_STEPS, width) * own_mask[..., None],
        "center_gt_trajs_mask": own_mask,
        "center_gt_final_valid_idx": (steps * own_mask).amax(-1),
    }
    if context.get("USE_LIDAR_POINTS"):
        mask = torch.rand(rows, context["double_poly"]["nr_timestamps"], 4) < 0.7
        mask[0], mask[1:, -1, 0] = False, True
        batch |= {"lidar_mask": mask, "center_lidar_points": normal(*mask.shape, channels) * mask[..., None]}
    intentions = 20 * normal(3, queries, 2)
    return golden_arrays(context, decoder, batch, list(kinds), intentions, model=model, channels=channels)


@pytest.mark.parametrize(
    ("context", "decoder", "options"),
    [
        ({"NUM_OF_ATTN_NEIGHBORS": 50}, {"NUM_BASE_MAP_POLYLINES": 9, "NUM_WAYPOINT_MAP_POLYLINES": 9}, {"model": "mtr"}),
        ({}, {"NUM_BASE_MAP_POLYLINES": 0, "LOSS_WEIGHTS": {}, "NMS_DIST_THRESH": 0.0}, {"model": "mtr"}),
        ({}, {"NUM_WAYPOINT_MAP_POLYLINES": 0, "NMS_DIST_THRESH": 900.0}, {"model": "mtr", "unknown_future": True}),
        ({"NUM_ATTN_HEAD": 1}, {"NUM_DECODER_LAYERS": 1, "NUM_ATTN_HEAD": 4, "NUM_MOTION_MODES": 6}, {"model": "mtr"}),
        ({}, {"LOSS_WEIGHTS": {"cls": 50.0, "red": 9.0}}, {"model": "limtr", "unknown_future": True}),
        (lidar(features=[2, 0, 1], one_hot=False, frames=1), EVERYWHERE, {"model": "limtr"}),
        (lidar(features=None, beside=(False, True)), {"CONCAT_LIDAR_CENTER": True}, {"model": "limtr"}),
        (lidar(features=[], one_hot=False, pooling="average"), {"CONCAT_LIDAR_AGENTS": True}, {"model": "limtr"}),
        (lidar(features=[1], pooled_time=True, pooling="average", beside=(True, False)), {}, {"model": "limtr"}),
        (lidar(features=[0], pooled_time=True, frames=1, beside=(False, True)),
         EVERYWHERE | {"NMS_DIST_THRESH": dict(zip(("TYPE_VEHICLE", "TYPE_PEDESTRIAN", "TYPE_CYCLIST"), (30.0, 0.5, 9.0),
                                                   strict=True))}, {"model": "limtr"}),
        ({}, {"class_weights": [0.5, 3.0, 2.0], "confidence_label_smoothing": 0.2}, {"model": "limtr"}),
        (lidar(features=[1], layers=3), {"confidence_knn_smoothing": 2}, {"model": "limtr", "unknown_future": True}),
        (lidar(features=[1], layers=1, pooled_time=True), {"class_weights": [0.0, 1.0, 2.0]}, {"model": "limtr"}),
    ],
    ids=[
        "fewer tokens and polylines than asked for", "no base polylines, default weights, no suppression",
        "no waypoint polylines, everything suppressed, a future unknown", "one layer, other heads, every query a mode",
        "LiMTR without LiDAR", "LiDAR of one frame, three features, no class",
        "LiDAR with the centre alone, no pooled feature beside", "LiDAR among agents alone, bare points, average",
        "pooled time, average, fused in the encoder alone", "pooled time, one frame, a distance per class",
        "class weights, smoothed labels", "labels smoothed over neighbours, one depth for all of the LiDAR encoder",
        "pooled time, one layer a stage, a class without weight",
    ],
)  # fmt: skip
def test_the_model_follows_the_reference_in_other_configurations(
    context: dict[str, Any], decoder: dict[str, Any], options: dict[str, Any]
) -> None:
    found = compare(random_golden(context, decoder, **options))
    assert len(found) > 150
    assert not [(item.name, item.difference, item.tolerance) for item in found if not item.agrees]


def test_a_file_that_does_not_name_its_model_is_told_by_its_state() -> None:
    for model in ("mtr", "limtr"):
        golden = random_golden({}, {}, model=model)
        meta = json.loads(str(golden["meta_json"]))
        del meta["model"]
        assert all(item.agrees for item in compare(golden | {"meta_json": np.array(json.dumps(meta))}))


@pytest.mark.parametrize("model", ["mtr", "limtr"])
def test_a_model_of_some_classes_only_has_no_points_of_the_others(model: str) -> None:
    golden = random_golden({}, {"OBJECT_TYPE": ["TYPE_PEDESTRIAN", "TYPE_CYCLIST"]}, model=model, kinds=[2, 1, 1])
    golden = {name: value for name, value in golden.items() if not name.endswith("TYPE_VEHICLE")}
    found = compare(golden)
    assert len(found) > 150
    assert not [item.name for item in found if not item.agrees]
    state = {name[6:]: torch.from_numpy(value) for name, value in golden.items() if name.startswith("state/")}
    config = build_model(golden, json.loads(str(golden["meta_json"]))).config
    ours, kept = our_names(state)
    assert to_reference(ours, config, kept).keys() == state.keys()


def test_a_golden_file_without_any_intention_points_is_told_about() -> None:
    golden = {name: value for name, value in random_golden({}, {}, model="mtr").items() if not name.startswith("intention")}
    with pytest.raises(ValueError, match="intention/TYPE_VEHICLE"):
        compare(golden)
