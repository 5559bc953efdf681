"""Predictions as a challenge submission: MotionChallengeSubmission messages in a gzipped tar, as Waymo's server reads it."""

from __future__ import annotations

import gzip
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.joint import best_products
from evaluation.metric_config import MotionMetricsConfig
from evaluation.scenario_predictions import challenge_steps
from evaluation.submission_targets import Challenge, Targets
from limtr.files import atomic_path
from limtr.prediction import ScenePrediction
from preprocessing.womd import schema

MAX_MODES = MotionMetricsConfig().max_predictions
SHARD_NAME = "predictions.binproto-{index:05d}-of-{count:05d}"

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SubmissionInfo:
    """What a submission says of itself. Fields that the server requires since April 2024 have no default."""

    account_name: str
    """The full e-mail address of the account at waymo.com/open."""
    unique_method_name: str
    uses_lidar_data: bool
    uses_camera_data: bool
    num_model_parameters: str
    """A whole number and a suffix, such as 64M."""
    public_model_names: tuple[str, ...] = ()
    """Open models that the method was pre-trained from; none means that it was not."""
    authors: tuple[str, ...] = ()
    affiliation: str = ""
    description: str = ""
    method_link: str = ""

    def message(self, challenge: Challenge) -> Any:
        """A `schema.MotionChallengeSubmission` without predictions."""
        kinds = {"motion": "MOTION_PREDICTION", "interaction": "INTERACTION_PREDICTION"}
        message = schema.MotionChallengeSubmission(
            submission_type=schema.MotionChallengeSubmission.SubmissionType.Value(kinds[challenge]),
            account_name=self.account_name,
            unique_method_name=self.unique_method_name,
            authors=self.authors,
            uses_lidar_data=self.uses_lidar_data,
            uses_camera_data=self.uses_camera_data,
            uses_public_model_pretraining=bool(self.public_model_names),
            num_model_parameters=self.num_model_parameters,
            public_model_names=self.public_model_names,
        )
        for name in ("affiliation", "description", "method_link"):
            if getattr(self, name):
                setattr(message, name, getattr(self, name))
        return message


def parameters_text(number: int) -> str:
    """A number of parameters as the server wants it: 64139094 is 64M, 825874 is 826K."""
    for suffix, size in (("B", 10**9), ("M", 10**6)):
        if round(number / size, 3) >= 1:
            return f"{round(number / size)}{suffix}"
    return f"{max(1, round(number / 1000))}K"


def motion_message(prediction: ScenePrediction) -> Any:
    """The predictions of single objects: the first six modes of each, best first, at 2 Hz."""
    message = schema.ChallengeScenarioPredictions(scenario_id=prediction.scenario_id)
    message.single_predictions.SetInParent()
    paths = challenge_steps(prediction.xy_m[:, :MAX_MODES])
    scores = prediction.scores[:, :MAX_MODES]
    for row, object_id in enumerate(prediction.object_id.tolist()):
        item = message.single_predictions.predictions.add(object_id=object_id)
        for mode in np.argsort(-scores[row], kind="stable").tolist():
            scored = item.trajectories.add(confidence=float(scores[row, mode]))
            _fill(scored.trajectory, paths[row, mode])
    return message


def interaction_message(prediction: ScenePrediction, pair: tuple[int, int]) -> Any:
    """The joint prediction of a pair: the six best products of the modes predicted of each alone (`evaluation.joint`).

    Raises:
        ValueError: one of the pair is not predicted; names scenario and objects.
    """
    ids = prediction.object_id.tolist()
    missing = [object_id for object_id in pair if object_id not in ids]
    if missing:
        raise ValueError(f"scenario {prediction.scenario_id!r}: objects {missing} of the interacting pair are not predicted")
    rows = [ids.index(object_id) for object_id in pair]
    scores = prediction.scores[:, :MAX_MODES]
    paths = challenge_steps(prediction.xy_m[:, :MAX_MODES])
    message = schema.ChallengeScenarioPredictions(scenario_id=prediction.scenario_id)
    for first, second, score in zip(*best_products(scores[rows[0]], scores[rows[1]], MAX_MODES), strict=True):
        joint = message.joint_prediction.joint_trajectories.add(confidence=float(score))
        for object_id, row, mode in zip(pair, rows, (int(first), int(second)), strict=True):
            _fill(joint.trajectories.add(object_id=object_id).trajectory, paths[row, mode])
    return message


def _fill(trajectory: Any, path: Float) -> None:
    trajectory.center_x.extend(path[:, 0].tolist())
    trajectory.center_y.extend(path[:, 1].tolist())


def scenario_messages(
    predictions: Iterable[ScenePrediction], challenge: Challenge, targets: Targets | None, problems: list[str]
) -> Iterator[Any]:
    """`schema.ChallengeScenarioPredictions` of every scenario that can be submitted.

    Args:
        predictions: scenario after scenario.
        challenge: which one.
        targets: what must be predicted, None if it is not known (motion only): then all predicted objects are submitted.
        problems: gets a sentence about whatever is left out.
    """
    for prediction in predictions:
        name = prediction.scenario_id
        if targets is None:
            yield motion_message(prediction)
            continue
        if name not in targets:
            problems.append(f"scenario {name!r} is not in the split and is left out")
            continue
        target = targets[name]
        if challenge == "motion":
            yield motion_message(_in_order(prediction, target.object_ids, problems))
        elif target.pair is None:
            problems.append(f"scenario {name!r} names no pair of interacting objects and is left out")
        else:
            try:
                yield interaction_message(prediction, target.pair)
            except ValueError as error:
                problems.append(str(error))


def _in_order(prediction: ScenePrediction, object_ids: tuple[int, ...], problems: list[str]) -> ScenePrediction:
    """The predictions of the tracks to predict, in the record's order; others are named and left out."""
    ids = prediction.object_id.tolist()
    others = sorted(set(ids) - set(object_ids))
    if others:
        problems.append(f"scenario {prediction.scenario_id!r}: objects {others} are no tracks to predict and are left out")
    rows = [ids.index(object_id) for object_id in object_ids if object_id in ids]
    return ScenePrediction(
        scenario_id=prediction.scenario_id,
        object_id=prediction.object_id[rows],
        xy_m=prediction.xy_m[rows],
        scores=prediction.scores[rows],
    )


def write_archive(
    path: Path, scenarios: Iterable[Any], info: SubmissionInfo, challenge: Challenge, *, scenarios_per_shard: int
) -> int:
    """Write a gzipped tar of submission messages; returns the number of scenarios. Its bytes depend on its contents alone.

    Args:
        path: appears only when the archive is whole.
        scenarios: `schema.ChallengeScenarioPredictions`; one shard is held in memory at a time.
        info: what every shard says of the submission.
        challenge: which one.
        scenarios_per_shard: protobuf reads no message of 2 GB or more.

    Raises:
        ValueError: there are no scenarios.
    """
    with tempfile.TemporaryDirectory(prefix="limtr-submission-") as folder:
        shards: list[Path] = []
        total = 0
        message = info.message(challenge)

        def close_shard() -> None:
            shards.append(Path(folder) / str(len(shards)))
            shards[-1].write_bytes(message.SerializeToString(deterministic=True))

        for scenario in scenarios:
            message.scenario_predictions.append(scenario)
            total += 1
            if len(message.scenario_predictions) == scenarios_per_shard:
                close_shard()
                message = info.message(challenge)
        if message.scenario_predictions:
            close_shard()
        if not shards:
            raise ValueError(f"{path}: no scenario can be submitted; nothing is written")
        with (
            atomic_path(path) as temporary,
            temporary.open("wb") as handle,
            gzip.GzipFile(filename="", fileobj=handle, mode="wb", mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for index, shard in enumerate(shards):
                entry = tarfile.TarInfo(SHARD_NAME.format(index=index, count=len(shards)))
                entry.size = shard.stat().st_size
                with shard.open("rb") as content:
                    archive.addfile(entry, content)
    return total
