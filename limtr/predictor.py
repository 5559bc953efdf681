"""MotionPredictor: the whole model, from an AgentBatch to the modes of every centre agent."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self, overload

import numpy as np
import torch
from torch import nn

from limtr.agent_batch import AgentBatch
from limtr.config import ModelConfig
from limtr.config_json import config_from_json, config_to_json
from limtr.decoder import DecoderOutputs, MotionDecoder
from limtr.encoder import ContextEncoder
from limtr.intentions import check_intentions
from limtr.model_files import find_model_folder, read_model, read_weights, require_same_architecture, write_model
from limtr.modes import average_modes, rescore_modes, select_modes
from limtr.prediction import Prediction, ScenePrediction
from limtr.reference import is_reference_state, our_names
from limtr.scene import PREDICTED_TYPES, FloatArray, ObjectType, Scene


class MotionPredictor(nn.Module):
    """MTR or LiMTR, as the configuration says.

    In training, calling it gives `DecoderOutputs` for `limtr.loss.compute_loss`; in evaluation a `Prediction`.
    `decode` gives the outputs in both.
    """

    intention_points: torch.Tensor
    """(3, Q, 2) metres, of vehicles, pedestrians and cyclists; saved with the weights"""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ContextEncoder(config)
        self.decoder = MotionDecoder(config)
        self.register_buffer("intention_points", default_intentions(config.decoder.num_queries))
        self.kept: dict[str, torch.Tensor] = {}
        """Tensors of a reference checkpoint that its own training never reaches: kept for the way back, never used."""
        self.licence = ""
        """Terms that the weights are under, from what they were trained on; saved with them."""

    def forward(self, batch: AgentBatch) -> DecoderOutputs | Prediction:
        """`DecoderOutputs` in training, `Prediction` in evaluation."""
        outputs = self.decode(batch)
        return outputs if self.training else self.select(outputs, batch.center_type)

    def decode(self, batch: AgentBatch) -> DecoderOutputs:
        """Predictions of all decoder layers and queries.

        Raises:
            ValueError: the batch does not fit the configuration.
        """
        batch = without_garbage(batch)
        self._check(batch)
        kind = (batch.center_type - 1).clamp(0, len(PREDICTED_TYPES) - 1)
        intentions = self.intention_points[kind].to(batch.agent_history.dtype)
        outputs: DecoderOutputs = self.decoder(self.encoder(batch), intentions)
        return outputs

    def select(self, outputs: DecoderOutputs, center_type: torch.Tensor) -> Prediction:
        """The modes of the last layer that non-maximum suppression leaves; `center_type` (C,) chooses its distance."""
        last = outputs.layers[-1]
        return self.modes_of(last.trajectories, last.scores.softmax(dim=-1), self.nms_distance(center_type))

    def nms_distance(self, center_type: torch.Tensor) -> torch.Tensor:
        """(C,) metres between end points within which non-maximum suppression takes two modes of such an agent for one."""
        distances = self.intention_points.new_tensor(self.config.nms_distance_m)
        return distances[(center_type - 1).clamp(0, len(PREDICTED_TYPES) - 1)]

    def modes_of(self, trajectories: torch.Tensor, probabilities: torch.Tensor, distance_m: float | torch.Tensor) -> Prediction:
        """The modes that queries (C, Q, T, 7) with probabilities (C, Q) leave, scored as the configuration says.

        `distance_m` of non-maximum suppression: one, or (C,) one per agent.
        """
        modes, scores = select_modes(trajectories, probabilities, self.config.num_modes, distance_m)
        if self.config.mode_scores != "query":
            modes = average_modes(modes, trajectories, probabilities, self.config.mode_averaging)
            modes, scores = rescore_modes(modes, trajectories, probabilities, self.config.mode_scores)
        return Prediction(trajectories=modes, scores=scores)

    @overload
    def predict(self, scenes: Scene) -> ScenePrediction: ...

    @overload
    def predict(self, scenes: Sequence[Scene]) -> list[ScenePrediction]: ...

    @torch.no_grad()
    def predict(self, scenes: Scene | Sequence[Scene]) -> ScenePrediction | list[ScenePrediction]:
        """Predict the targets of one scene or several in world coordinates; those invalid at the current step are left out."""
        from limtr.agent_view import build_agent_batch
        from limtr.batch import collate
        from limtr.world_view import to_world

        listed = [scenes] if isinstance(scenes, Scene) else list(scenes)
        if not listed:
            return []
        parameter = next(self.parameters())
        view = self.config.view
        batch = collate(listed, num_lidar_points=view.lidar_points_to_load).to(parameter.device)
        agents = build_agent_batch(batch, view).to(dtype=parameter.dtype)
        training = self.training
        self.eval()
        try:
            prediction = self.select(self.decode(agents), agents.center_type)
        finally:
            self.train(training)
        predictions: list[ScenePrediction] = to_world(prediction, agents, batch)
        return predictions[0] if isinstance(scenes, Scene) else predictions

    def set_intentions(self, points: Mapping[ObjectType, FloatArray]) -> None:
        """Replace the intention points; another number of points per class changes `config.decoder.num_queries`.

        Raises:
            ValueError: a class is missing, or the points are not finite (Q, 2).
        """
        check_intentions(points)
        stacked = torch.as_tensor(np.stack([np.asarray(points[kind]) for kind in PREDICTED_TYPES]))
        if stacked.shape[1] != self.config.decoder.num_queries:
            self.config = replace(self.config, decoder=replace(self.config.decoder, num_queries=stacked.shape[1]))
        self.intention_points = stacked.to(self.intention_points)

    def fingerprint(self) -> str:
        """Hash of weights and configuration (16 hexadecimal digits)."""
        digest = hashlib.sha256(json.dumps(config_to_json(self.config), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: Path | str) -> Path:
        """Write `model.safetensors` and `config.json` into the folder `path`; returns the folder.

        Raises:
            OSError: as the file system says it; files that were there before stay whole.
        """
        extra = {"licence": self.licence, "fingerprint": self.fingerprint()}
        return write_model(Path(path), self.state_dict(), self.kept, {"model": config_to_json(self.config), **extra})

    @classmethod
    def load(cls, path: Path | str, *, device: torch.device | str = "cpu") -> Self:
        """The model in a folder that `save` wrote, in a training run (its newest checkpoint), or beside `model.safetensors`.

        It comes in evaluation mode.

        Raises:
            FileNotFoundError: there is none.
            ValueError: the files are no such model, or weights and configuration are not of one architecture.
        """
        folder = find_model_folder(Path(path))
        state, kept, content = read_model(folder)
        config = config_from_json(content["model"], where=str(folder / "config.json"))
        with torch.device("meta"):
            model = cls(config)
        require_same_architecture(model.state_dict(), state, folder)
        model.load_state_dict(state, assign=True)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        model.kept = kept
        model.licence = str(content.get("licence", ""))
        if content.get("fingerprint") != model.fingerprint():
            warnings.warn(f"{folder}: weights or configuration were changed after saving (another fingerprint)", stacklevel=2)
        return model.to(device).eval()

    def initialise_from(self, source: Path | str | Mapping[str, torch.Tensor]) -> str:
        """Start from the weights of another model where name and shape agree; returns a report of what was not taken.

        The source may be ours (file, folder or run) or a reference checkpoint (`.pth`, `.ckpt`), MTR into LiMTR included: the
        input of the centre agent's projection, which LiMTR widens by the LiDAR feature, is then taken for MTR's part, and the
        weights of the LiDAR feature begin at zero.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: nothing in it fits.
        """
        state = dict(source) if isinstance(source, Mapping) else read_weights(Path(source))
        if is_reference_state(state):
            state = our_names(state)[0]
        own = self.state_dict()
        report = {"loaded": 0, "widened": 0}
        skipped = []
        with torch.no_grad():
            for name, value in state.items():
                target = own.get(name)
                if target is None or target.dim() != value.dim():
                    skipped.append(name)
                elif target.shape == value.shape:
                    target.copy_(value)
                    report["loaded"] += 1
                elif name == "decoder.center_projection.0.weight" and target.shape[0] == value.shape[0]:
                    width = min(target.shape[1], value.shape[1])
                    target[:, :width] = value[:, :width]
                    target[:, width:] = 0.0  # what is new says nothing yet: the model starts as the other one ended
                    report["widened"] += 1
                else:
                    skipped.append(name)
        if not report["loaded"]:
            raise ValueError(f"no tensor of {source if not isinstance(source, Mapping) else 'the state'} fits this model")
        if 2 * report["loaded"] < len(own):
            warnings.warn(
                f"only {report['loaded']} of this model's {len(own)} tensors fit those of the source, the rest begins anew:"
                " the source is probably of another preset or configuration",
                stacklevel=2,
            )
        fresh = sorted(set(own) - set(state))
        return (
            f"initialised {report['loaded']} of {len(own)} tensors, {report['widened']} in part; "
            f"not in the source: {_some(fresh)}; not taken from the source: {_some(skipped)}"
        )

    def _check(self, batch: AgentBatch) -> None:
        view = self.config.view
        channels = {
            "agent_history": (batch.agent_history, self.config.num_agent_channels),
            "polylines": (batch.polylines, view.num_polyline_channels),
        }
        if batch.lidar_points is not None and view.use_lidar:
            channels["lidar_points"] = (batch.lidar_points, view.num_lidar_channels)
            if batch.lidar_points.shape[1] != view.num_lidar_frames:
                raise ValueError(f"lidar_points must have {view.num_lidar_frames} frames, has {batch.lidar_points.shape[1]}")
        for name, (value, expected) in channels.items():
            if value.shape[-1] != expected:
                raise ValueError(
                    f"{name} must have {expected} channels, has {value.shape[-1]}: build the batch with model.config.view"
                )


def default_intentions(num_queries: int) -> torch.Tensor:
    """Intention points (3, Q, 2) before any were clustered: a fan as wide and long as the class can go in 8 s."""
    index = torch.arange(num_queries, dtype=torch.float32)
    radius_share = (index + 0.5) / num_queries
    # Multiples of the golden ratio spread the angles evenly whatever their number.
    angle_share = 2 * ((index * 0.6180339887) % 1.0) - 1
    reach_m = torch.tensor([120.0, 15.0, 60.0])
    half_angle_rad = torch.tensor([0.9, 3.1, 1.2])
    radius = reach_m[:, None] * radius_share
    # Those who go far cannot turn as much.
    angle = half_angle_rad[:, None] * angle_share * (1 - 0.5 * radius_share)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)


def without_garbage(batch: AgentBatch) -> AgentBatch:
    """The batch with zeros in every masked slot, so that whatever was there (NaN and infinities included) cannot act."""

    def keep(value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.where(mask.unsqueeze(-1), value, 0.0)

    history_mask, polyline_mask = batch.agent_history_mask.bool(), batch.polyline_mask.bool()
    cleaned: dict[str, torch.Tensor] = {
        "agent_history": keep(batch.agent_history, history_mask),
        "agent_history_mask": history_mask,
        "agent_last_position": keep(batch.agent_last_position, history_mask.any(dim=-1)),
        "polylines": keep(batch.polylines, polyline_mask),
        "polyline_mask": polyline_mask,
        "polyline_center": keep(batch.polyline_center, polyline_mask.any(dim=-1)),
    }
    if batch.lidar_points is not None and batch.lidar_mask is not None:
        cleaned["lidar_mask"] = batch.lidar_mask.bool()
        cleaned["lidar_points"] = keep(batch.lidar_points, cleaned["lidar_mask"])
    return replace(batch, **cleaned)


def _some(names: Sequence[str]) -> str:
    return "none" if not names else ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
