"""What Waymo's server would reject in a challenge submission, said before the upload."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.metric_config import NUM_PREDICTION_STEPS
from evaluation.submission import MAX_MODES
from evaluation.submission_archive import read_messages
from evaluation.submission_problems import Problems
from evaluation.submission_targets import MAX_OBJECTS, Challenge, Targets
from preprocessing.womd import schema

_PARAMETERS = re.compile(r"[1-9]\d*[KMBT]")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_PREDICTIONS_FIELD = "scenario_predictions"


@dataclass(kw_only=True)
class SubmissionCheck:
    """What a submission holds and what is wrong with it."""

    problems: Problems = field(default_factory=Problems)
    challenge: Challenge = "motion"
    num_files: int = 0
    scenario_ids: set[str] = field(default_factory=set)
    num_objects: int = 0


def check_submission(path: Path, targets: Targets | None = None) -> SubmissionCheck:
    """Look at everything in an archive.

    Args:
        path: the gzipped tar.
        targets: what must be predicted; without it ids can only be compared with each other.

    Raises:
        FileNotFoundError: there is no such file.
    """
    check = SubmissionCheck()
    first: Any = None
    for name, message in read_messages(path, check.problems):
        check.num_files += 1
        about = schema.MotionChallengeSubmission()
        about.CopyFrom(message)
        about.ClearField(_PREDICTIONS_FIELD)
        if first is None:
            first = about
            _check_about(about, check)
        elif about != first:
            check.problems.reject("the shards do not say the same of the submission", name)
        for scenario in message.scenario_predictions:
            _check_scenario(scenario, check, targets)
    if first is not None and not check.scenario_ids:
        check.problems.reject("there are no scenario_predictions")
    if targets is not None and first is not None:
        missing = [name for name in targets if name not in check.scenario_ids]
        if missing:
            check.problems.reject("scenarios of the split are not predicted", *missing)
    return check


def _check_about(message: Any, check: SubmissionCheck) -> None:
    reject = check.problems.reject
    kinds = schema.MotionChallengeSubmission.SubmissionType
    if message.submission_type == kinds.Value("INTERACTION_PREDICTION"):
        check.challenge = "interaction"
    elif message.submission_type != kinds.Value("MOTION_PREDICTION"):
        reject("submission_type must be MOTION_PREDICTION or INTERACTION_PREDICTION")
    if not _EMAIL.fullmatch(str(message.account_name)):
        reject(f"account_name must be the full e-mail address of the account, is {message.account_name!r}")
    if not message.unique_method_name:
        reject("unique_method_name is missing")
    for name in ("uses_lidar_data", "uses_camera_data", "uses_public_model_pretraining"):
        if not message.HasField(name):
            reject(f"{name} is missing (required since April 2024)")
    if not _PARAMETERS.fullmatch(str(message.num_model_parameters)):
        reject(
            "num_model_parameters must be a whole number and one of K, M, B, T, such as 64M (required since April 2024), is "
            f"{message.num_model_parameters!r}"
        )
    if message.uses_public_model_pretraining and not message.public_model_names:
        reject("public_model_names must name the models that uses_public_model_pretraining speaks of")


def _check_scenario(scenario: Any, check: SubmissionCheck, targets: Targets | None) -> None:
    reject = check.problems.reject
    name = scenario.scenario_id
    if not name or not isinstance(name, str):  # protobuf hands out text that is not UTF-8 as bytes
        reject("a scenario has no scenario_id")
        return
    if name in check.scenario_ids:
        reject("a scenario comes twice", name)
        return
    check.scenario_ids.add(name)
    if targets is not None and name not in targets:
        reject("a scenario is not in the split", name)
        return
    expected = "single_predictions" if check.challenge == "motion" else "joint_prediction"
    if scenario.WhichOneof("prediction_set") != expected:
        reject(f"a scenario of the {check.challenge} challenge must have {expected}", name)
        return
    ids = _check_motion(scenario, check, targets) if check.challenge == "motion" else _check_joint(scenario, check, targets)
    check.num_objects += len(ids)
    twice = sorted({object_id for object_id in ids if ids.count(object_id) > 1})
    if twice:
        reject("an object is predicted twice", *(f"{name}/{object_id}" for object_id in twice))
    if targets is not None:
        wanted = targets[name].wanted(check.challenge)
        missing, others = set(wanted) - set(ids), set(ids) - set(wanted)
        what = "tracks to predict" if check.challenge == "motion" else "the interacting pair"
        if missing:
            reject(f"objects of {what} are not predicted", *(f"{name}/{item}" for item in sorted(missing)))
        if others:
            reject(f"predicted objects do not belong to {what}", *(f"{name}/{item}" for item in sorted(others)))


def _check_motion(scenario: Any, check: SubmissionCheck, targets: Targets | None) -> list[int]:
    """Check predictions of single objects; returns their ids."""
    reject, name = check.problems.reject, scenario.scenario_id
    predictions = scenario.single_predictions.predictions
    if not 1 <= len(predictions) <= MAX_OBJECTS:
        reject(f"a scenario must have 1 to {MAX_OBJECTS} predicted objects", f"{name} has {len(predictions)}")
    for item in predictions:
        place = f"{name}/{item.object_id}"
        if not item.HasField("object_id"):
            reject("a prediction has no object_id", name)
        _check_modes([mode.confidence for mode in item.trajectories], place, check)
        for index, mode in enumerate(item.trajectories):
            _check_path(mode.trajectory, f"{place} mode {index}", check, (targets, name, item.object_id))
    return [item.object_id for item in predictions]


def _check_joint(scenario: Any, check: SubmissionCheck, targets: Targets | None) -> list[int]:
    """Check the joint prediction of a pair; returns the ids of the first mode."""
    reject, name = check.problems.reject, scenario.scenario_id
    modes = scenario.joint_prediction.joint_trajectories
    _check_modes([mode.confidence for mode in modes], name, check)
    first = [item.object_id for item in modes[0].trajectories] if modes else []
    for index, mode in enumerate(modes):
        place = f"{name} mode {index}"
        ids = [item.object_id for item in mode.trajectories]
        if len(ids) != 2:
            reject("a joint prediction must have the trajectories of two objects", f"{place} has {len(ids)}")
        elif ids != first:
            reject("the joint predictions of a scenario must name the same objects in the same order", f"{place} has {ids}")
        for item in mode.trajectories:
            _check_path(item.trajectory, f"{name}/{item.object_id} mode {index}", check, (targets, name, item.object_id))
    return first


def _check_modes(confidences: Sequence[float], place: str, check: SubmissionCheck) -> None:
    reject = check.problems.reject
    if not 1 <= len(confidences) <= MAX_MODES:
        reject(f"there must be 1 to {MAX_MODES} modes", f"{place} has {len(confidences)}")
    if not all(math.isfinite(value) and value >= 0 for value in confidences):
        reject("confidences must be finite and not negative", place)
    elif list(confidences) != sorted(confidences, reverse=True):
        reject(f"modes must stand best first (what lies behind the first {MAX_MODES} is discarded)", place)
    if len(confidences) > 1 and not any(confidences):
        check.problems.remark("all confidences are 0, so that modes are not told apart", place)


def _check_path(trajectory: Any, place: str, check: SubmissionCheck, key: tuple[Targets | None, str, int]) -> None:
    x, y = trajectory.center_x, trajectory.center_y
    if len(x) != NUM_PREDICTION_STEPS or len(y) != NUM_PREDICTION_STEPS:
        check.problems.reject(
            f"a trajectory must have {NUM_PREDICTION_STEPS} positions (2 Hz, the first 0.5 s after the current step)",
            f"{place} has {len(x)} x and {len(y)} y",
        )
        return
    if not all(map(math.isfinite, (*x, *y))):
        check.problems.reject("positions must be finite", place)
        return
    targets, name, object_id = key
    reach = targets[name].reach.get(object_id) if targets is not None else None
    if reach is not None and math.hypot(x[0] - reach[0], y[0] - reach[1]) > reach[2]:
        check.problems.remark(
            "the first position is too far from where the object is now: are positions in world coordinates and in order?",
            place,
        )
