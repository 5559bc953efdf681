"""Small submissions to the challenges, whole ones and ones to break."""

import io
import tarfile
from pathlib import Path
from typing import Any

from evaluation.baselines import turn_rate_fan
from evaluation.submission import SubmissionInfo, interaction_message, motion_message
from evaluation.submission_targets import Challenge, targets_of
from limtr.scene import Scene
from preprocessing.womd import schema
from tests.builders import tiny_scene

INFO = SubmissionInfo(
    account_name="someone@example.org", unique_method_name="fan", uses_lidar_data=False, uses_camera_data=False,
    num_model_parameters="826K", authors=("A. Author", "B. Author"),
)  # fmt: skip


def scenes(challenge: Challenge = "motion") -> list[Scene]:
    """Three test scenes: with three tracks to predict each, or with two."""
    num_targets = 3 if challenge == "motion" else 2
    return [tiny_scene(seed, num_steps=11, num_targets=num_targets, with_lidar=False) for seed in range(3)]


def submission(challenge: Challenge = "motion") -> Any:
    """A sound message for all of `scenes`."""
    message = INFO.message(challenge)
    items = scenes(challenge)
    targets = targets_of(items)
    for scene in items:
        prediction, pair = turn_rate_fan(scene), targets[scene.scenario_id].pair
        if challenge == "motion":
            message.scenario_predictions.append(motion_message(prediction))
        else:
            assert pair is not None
            message.scenario_predictions.append(interaction_message(prediction, pair))
    return message


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """A gzipped tar of some files."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def shard(message: Any, start: int, stop: int) -> bytes:
    """A part of a submission, by its scenarios."""
    part = schema.MotionChallengeSubmission()
    part.CopyFrom(message)
    del part.scenario_predictions[:]
    part.scenario_predictions.extend(message.scenario_predictions[start:stop])
    return bytes(part.SerializeToString())
