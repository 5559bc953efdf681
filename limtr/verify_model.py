"""`limtr verify model FILE.npz`: is our model the reference's, in outputs, losses and gradients?"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tyro.conf import Positional

from limtr.agent_batch import AgentBatch
from limtr.config import ModelConfig
from limtr.conformance import Comparison, print_comparisons
from limtr.decoder import DecoderOutputs
from limtr.loss import LossTerms, compute_loss
from limtr.modes import select_modes
from limtr.predictor import MotionPredictor
from limtr.reference import from_reference, our_names, reference_config, to_reference
from limtr.scene import PREDICTED_TYPES, ObjectType

OUTPUT_TOLERANCE = 1e-6  # of the tensor's largest entry
LOSS_TOLERANCE = 1e-6  # of the term
GRADIENT_TOLERANCE = 1e-5  # of the norm
GRADIENT_FLOOR = 1e-9  # of the largest norm
PUBLISHED_DISTANCE_M = 2.5

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class VerifyModelConfig:
    """Compare the model with a golden file of the reference implementation."""

    golden: Positional[Path]
    """Golden file (.npz) with the reference's configuration, state, inputs and results."""


def run(config: VerifyModelConfig) -> int:
    """Print every compared quantity, and what the file holds that nothing was compared with; 0 only if all agree."""
    golden = read_golden(config.golden)
    comparisons = compare(golden)
    compared = {item.name for item in comparisons}
    results = [name for name in golden if name.startswith(("eval/", "train/", "nms/out_", "grad_norm/"))]
    for name in results:
        if name not in compared and not any(other.startswith(name) for other in compared):
            print(f"note {name}: the file holds it, and nothing of ours is compared with it")
    return print_comparisons(comparisons)


def read_golden(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a golden file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable .npz of plain arrays ({error})") from error
    if "meta_json" not in arrays:
        raise ValueError(f"{path}: has no meta_json; expected a golden file of the reference model")
    return arrays


def compare(golden: Arrays) -> list[Comparison]:
    """Everything the file holds, against our model in float64 and reference mode.

    Raises:
        ValueError: the file lacks something, or its configuration and state do not fit each other.
    """
    try:
        meta = json.loads(str(golden["meta_json"]))
        model = build_model(golden, meta)
        batch = golden_batch(golden)
        return [
            *_compare_evaluation(golden, model, batch),
            *_compare_training(golden, meta, model, batch),
            *_compare_modes(golden, model.config),
        ]
    except KeyError as error:
        raise ValueError(f"the golden file has no {error}; see the list of its arrays in the data's README") from error


def build_model(golden: Arrays, meta: Mapping[str, Any]) -> MotionPredictor:
    """The file's model, in float64, without dropout."""
    points = _intention_points(golden)
    # A file that does not say whose it is: LiMTR's state has intention points in it, with LiDAR or without.
    has_buffers = any(name.startswith("state/motion_decoder.intention_points_") for name in golden)
    owner = {"model": "limtr"} if has_buffers else {}
    config = reference_config({**owner, **meta, "num_queries": len(points[ObjectType.VEHICLE])})
    config = replace(config, encoder=replace(config.encoder, dropout=0.0), decoder=replace(config.decoder, dropout=0.0))
    state = {
        name.removeprefix("state/"): torch.from_numpy(value) for name, value in golden.items() if name.startswith("state/")
    }
    model = MotionPredictor(config).double()
    model.set_intentions(points)
    ours = from_reference(state, config)
    model.kept = our_names(state)[1]
    model.load_state_dict({"intention_points": model.intention_points, **ours})
    return model


def _intention_points(golden: Arrays) -> dict[ObjectType, npt.NDArray[Any]]:
    """Those of the file; zeros for classes that its model does not know (OBJECT_TYPE)."""
    given = {kind: golden[f"intention/TYPE_{kind.name}"] for kind in PREDICTED_TYPES if f"intention/TYPE_{kind.name}" in golden}
    if not given:
        raise KeyError("intention/TYPE_VEHICLE")
    some = next(iter(given.values()))
    return {kind: given.get(kind, np.zeros_like(some)) for kind in PREDICTED_TYPES}


def golden_batch(golden: Arrays) -> AgentBatch:
    """The file's agent-centric input as our batch."""

    def array(name: str) -> torch.Tensor:
        return torch.from_numpy(golden[f"input/{name}"])

    history_mask = array("obj_trajs_mask").bool()
    kinds = [ObjectType[str(name).removeprefix("TYPE_")] for name in golden["input/center_objects_type"]]
    has_lidar = "input/center_lidar_points" in golden
    return AgentBatch(
        agent_history=array("obj_trajs"),
        agent_history_mask=history_mask,
        agent_last_position=array("obj_trajs_last_pos"),
        polylines=array("map_polylines"),
        polyline_mask=array("map_polylines_mask").bool(),
        polyline_center=array("map_polylines_center"),
        center_index=array("track_index_to_predict").long(),
        center_type=torch.tensor([int(kind) for kind in kinds]),
        lidar_points=array("center_lidar_points") if has_lidar else None,
        lidar_mask=array("lidar_mask").bool() if has_lidar else None,
        # LiMTR's futures carry a heading that its loss does not use by default.
        agent_future=array("obj_trajs_future_state")[..., :4],
        agent_future_mask=array("obj_trajs_future_mask") > 0,
        center_future=array("center_gt_trajs")[..., :4],
        center_future_mask=array("center_gt_trajs_mask") > 0,
    ).to(dtype=torch.float64)


def _compare_evaluation(golden: Arrays, model: MotionPredictor, batch: AgentBatch) -> list[Comparison]:
    model.eval()
    with torch.no_grad():
        outputs = model.decode(batch)
    scene = outputs.scene
    ours: dict[str, torch.Tensor | None] = {
        "eval/center_objects_feature": scene.center,
        "eval/obj_feature": scene.agents,
        "eval/map_feature": scene.polylines,
        "eval/lidar_feature": scene.lidar,
    }
    ours["eval/pred_trajs"], ours["eval/pred_scores"] = _final_modes(model, outputs, batch)
    return [_compare_output(name, golden[name], value) for name, value in ours.items() if name in golden]


def _final_modes(model: MotionPredictor, outputs: DecoderOutputs, batch: AgentBatch) -> tuple[torch.Tensor, torch.Tensor]:
    last = outputs.layers[-1]
    if model.config.num_modes == model.config.decoder.num_queries:
        # The reference then hands out all queries as they are, unsorted.
        return last.trajectories, last.scores.softmax(dim=-1)
    prediction = model.select(outputs, batch.center_type)
    return prediction.trajectories, prediction.scores


def _compare_training(golden: Arrays, meta: Mapping[str, Any], model: MotionPredictor, batch: AgentBatch) -> list[Comparison]:
    model.train()
    model.zero_grad()
    outputs = model.decode(batch)
    loss = compute_loss(outputs, batch, model.config)
    loss.total.backward()  # type: ignore[no-untyped-call]
    comparisons = []
    for index, layer in enumerate(outputs.layers):
        for name, value in (("scores", layer.scores), ("trajs", layer.trajectories)):
            comparisons.append(_compare_output(f"train/layer{index}/{name}", golden[f"train/layer{index}/{name}"], value))
    comparisons.append(_compare_output("train/pred_dense_trajs", golden["train/pred_dense_trajs"], outputs.dense))
    return comparisons + _compare_loss(golden, meta, loss) + _compare_gradients(golden, model)


def _compare_loss(golden: Arrays, meta: Mapping[str, Any], loss: LossTerms) -> list[Comparison]:
    names = {"regression": "reg_gmm", "velocity": "reg_vel", "classification": "cls"}
    ours = {"train/loss": loss.total, "loss": loss.total, "loss_dense_prediction": loss.terms["dense"]}
    for name, value in loss.terms.items():
        if name.startswith("layer"):
            layer, _, part = name.partition("_")
            ours[f"loss_{layer}" + (f"_{names[part]}" if part else "")] = value
    expected = {"train/loss": float(golden["train/loss"]), **meta.get("loss_terms", {})}
    comparisons = []
    for name, value in expected.items():
        found = float(ours[name].detach()) if name in ours else float("nan")
        note = "" if name in ours else "a term that our loss does not have"
        comparisons.append(
            Comparison(name=name, difference=abs(found - value), tolerance=LOSS_TOLERANCE * abs(value), note=note)
        )
    return comparisons


def _compare_gradients(golden: Arrays, model: MotionPredictor) -> list[Comparison]:
    norms = {
        name: torch.full((), -1.0, dtype=torch.float64) if parameter.grad is None else parameter.grad.norm()
        for name, parameter in model.named_parameters()
    }
    # The tensors that the reference never trains are no parameters of ours.
    untrained = {name: torch.full((), -1.0, dtype=torch.float64) for name in model.kept}
    ours = to_reference(norms, model.config, untrained)
    expected = {name.removeprefix("grad_norm/"): float(v) for name, v in golden.items() if name.startswith("grad_norm/")}
    largest = max(expected.values(), default=0.0)
    comparisons = []
    for name, value in expected.items():
        found = float(ours[name]) if name in ours else float("nan")
        tolerance = GRADIENT_TOLERANCE * abs(value) + GRADIENT_FLOOR * largest
        comparisons.append(Comparison(name=f"grad_norm/{name}", difference=abs(found - value), tolerance=tolerance))
    return comparisons


def _compare_modes(golden: Arrays, config: ModelConfig) -> list[Comparison]:
    if "nms/trajs" not in golden:
        return []
    inputs = torch.from_numpy(golden["nms/trajs"]), torch.from_numpy(golden["nms/scores"])
    # The file does not say which distance this part was made with: the published 2.5 m, or that of its configuration.
    tries = []
    for distance in dict.fromkeys((PUBLISHED_DISTANCE_M, config.nms_distance_m[0])):
        found = select_modes(*inputs, golden["nms/out_scores"].shape[1], distance)
        tries.append(
            [
                Comparison(
                    name=name, difference=_largest_difference(value, golden[name]), tolerance=0.0, note=f"at {distance} m"
                )
                for name, value in zip(("nms/out_trajs", "nms/out_scores"), found, strict=True)
            ]
        )
    return next((comparisons for comparisons in tries if all(item.agrees for item in comparisons)), tries[0])


def _compare_output(name: str, expected: npt.NDArray[Any], found: torch.Tensor | None) -> Comparison:
    if found is None:
        return Comparison(name=name, difference=float("nan"), tolerance=0.0, note="our model has no such output")
    largest = float(np.abs(expected).max(initial=0.0))
    return Comparison(name=name, difference=_largest_difference(found, expected), tolerance=OUTPUT_TOLERANCE * largest)


def _largest_difference(found: torch.Tensor, expected: npt.NDArray[Any]) -> float:
    if tuple(found.shape) != expected.shape:
        return float("nan")
    return float(np.abs(found.detach().numpy() - expected).max(initial=0.0))
