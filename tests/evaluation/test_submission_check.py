"""The check of submissions: sound ones pass, and each kind of broken one is rejected for what is wrong with it."""

import tarfile
import zipfile

import pytest

from evaluation.submission_check import check_submission
from evaluation.submission_targets import targets_of
from preprocessing.womd import schema
from tests.evaluation.submissions import pack, scenes, shard, submission


def rejected(tmp_path, message, challenge="motion"):
    path = pack(tmp_path / "s.tar.gz", {"predictions.bin": message.SerializeToString()})
    return check_submission(path, targets_of(scenes(challenge))).problems.rejected


@pytest.mark.parametrize("challenge", ["motion", "interaction"])
def test_a_sound_submission_passes(tmp_path, challenge):
    message = submission(challenge)
    assert rejected(tmp_path, message, challenge) == []
    path = pack(tmp_path / "shards.tgz", {f"x-0000{i}-of-00002": shard(message, 2 * i, 2 * i + 2) for i in range(2)})
    check = check_submission(path, targets_of(scenes(challenge)))
    assert check.problems.rejected == check.problems.remarks == []
    assert (check.challenge, check.num_files, len(check.scenario_ids)) == (challenge, 2, 3)
    assert check.num_objects == {"motion": 9, "interaction": 6}[challenge]


def objects(message):
    return message.scenario_predictions[1].single_predictions.predictions


def modes(message):
    return objects(message)[0].trajectories


def swap(items, first, second):
    one, other = type(items[0])(), type(items[0])()
    one.CopyFrom(items[first])
    other.CopyFrom(items[second])
    items[first].CopyFrom(other)
    items[second].CopyFrom(one)


BROKEN_MOTION = {
    "no type": (lambda m: m.ClearField("submission_type"), "submission_type must be MOTION_PREDICTION"),
    "no account": (lambda m: m.ClearField("account_name"), "account_name must be the full e-mail address"),
    "account is no address": (lambda m: setattr(m, "account_name", "someone"), "e-mail address of the account, is 'someone'"),
    "no method": (lambda m: m.ClearField("unique_method_name"), "unique_method_name is missing"),
    "lidar not said": (lambda m: m.ClearField("uses_lidar_data"), "uses_lidar_data is missing"),
    "camera not said": (lambda m: m.ClearField("uses_camera_data"), "uses_camera_data is missing"),
    "pre-training not said": (lambda m: m.ClearField("uses_public_model_pretraining"), "pretraining is missing"),
    "parameters not said": (lambda m: m.ClearField("num_model_parameters"), "num_model_parameters must be"),
    "parameters without suffix": (lambda m: setattr(m, "num_model_parameters", "64139094"), "is '64139094'"),
    "parameters with a point": (lambda m: setattr(m, "num_model_parameters", "1.5M"), "is '1.5M'"),
    "models not named": (lambda m: setattr(m, "uses_public_model_pretraining", True), "public_model_names must name"),
    "no scenarios": (lambda m: m.ClearField("scenario_predictions"), "there are no scenario_predictions"),
    "a scenario missing": (
        lambda m: m.scenario_predictions.pop(),
        "scenarios of the split are not predicted: tiny0002",
    ),
    "a scenario twice": (
        lambda m: m.scenario_predictions.append(m.scenario_predictions[0]),
        "a scenario comes twice: tiny0000",
    ),
    "an unknown scenario": (
        lambda m: setattr(m.scenario_predictions[0], "scenario_id", "other"),
        "a scenario is not in the split: other",
    ),
    "no scenario id": (lambda m: m.scenario_predictions[0].ClearField("scenario_id"), "a scenario has no scenario_id"),
    "joint instead of single": (
        lambda m: m.scenario_predictions[0].joint_prediction.SetInParent(),
        "the motion challenge must have single_predictions: tiny0000",
    ),
    "an object missing": (lambda m: objects(m).pop(), "tracks to predict are not predicted: tiny0001/114"),
    "an object twice": (lambda m: objects(m).append(objects(m)[0]), "an object is predicted twice: tiny0001/100"),
    "an unknown object": (
        lambda m: setattr(objects(m)[0], "object_id", 55),
        "predicted objects do not belong to tracks to predict: tiny0001/55",
    ),
    "row instead of id": (lambda m: setattr(objects(m)[1], "object_id", 1), "not belong to tracks to predict: tiny0001/1"),
    "no object id": (lambda m: objects(m)[0].ClearField("object_id"), "a prediction has no object_id: tiny0001"),
    "too many objects": (
        lambda m: [objects(m).add(object_id=1000 + i).trajectories.append(modes(m)[0]) for i in range(6)],
        "1 to 8 predicted objects: tiny0001 has 9",
    ),
    "no modes": (lambda m: objects(m)[0].ClearField("trajectories"), "1 to 6 modes: tiny0001/100 has 0"),
    "seven modes": (lambda m: modes(m).append(modes(m)[5]), "1 to 6 modes: tiny0001/100 has 7"),
    "modes out of order": (lambda m: swap(modes(m), 0, 5), "modes must stand best first"),
    "negative confidence": (lambda m: setattr(modes(m)[5], "confidence", -0.1), "finite and not negative: tiny0001/100"),
    "confidence is no number": (lambda m: setattr(modes(m)[5], "confidence", float("nan")), "finite and not negative"),
    "15 steps": (
        lambda m: (modes(m)[2].trajectory.center_x.pop(), modes(m)[2].trajectory.center_y.pop()),
        "16 positions (2 Hz, the first 0.5 s after the current step): tiny0001/100 mode 2 has 15 x and 15 y",
    ),
    "80 steps": (lambda m: modes(m)[2].trajectory.center_x.extend([0.0] * 64), "tiny0001/100 mode 2 has 80 x and 16 y"),
    "no path": (lambda m: modes(m)[2].ClearField("trajectory"), "mode 2 has 0 x and 0 y"),
    "a position is no number": (
        lambda m: modes(m)[1].trajectory.center_y.__setitem__(3, float("inf")),
        "positions must be finite: tiny0001/100 mode 1",
    ),
}


@pytest.mark.parametrize(("change", "expected"), BROKEN_MOTION.values(), ids=BROKEN_MOTION.keys())
def test_a_broken_motion_submission_is_rejected(tmp_path, change, expected):
    message = submission()
    change(message)
    assert any(expected in line for line in rejected(tmp_path, message)), rejected(tmp_path, message)


def joints(message):
    return message.scenario_predictions[1].joint_prediction.joint_trajectories


BROKEN_INTERACTION = {
    "single instead of joint": (
        lambda m: m.scenario_predictions[0].single_predictions.SetInParent(),
        "the interaction challenge must have joint_prediction: tiny0000",
    ),
    "one object": (
        lambda m: joints(m)[3].trajectories.pop(),
        "must have the trajectories of two objects: tiny0001 mode 3 has 1",
    ),
    "objects in another order": (
        lambda m: swap(joints(m)[3].trajectories, 0, 1),
        "the same objects in the same order: tiny0001 mode 3 has [107, 100]",
    ),
    "another pair": (
        lambda m: [setattr(joint.trajectories[1], "object_id", 114) for joint in joints(m)],
        "predicted objects do not belong to the interacting pair: tiny0001/114",
    ),
    "an object with itself": (
        lambda m: [setattr(joint.trajectories[1], "object_id", 100) for joint in joints(m)],
        "an object is predicted twice: tiny0001/100",
    ),
    "seven modes": (lambda m: joints(m).append(joints(m)[5]), "1 to 6 modes: tiny0001 has 7"),
    "no modes": (lambda m: m.scenario_predictions[1].joint_prediction.Clear(), "1 to 6 modes: tiny0001 has 0"),
    "modes out of order": (lambda m: swap(joints(m), 0, 5), "modes must stand best first"),
    "17 steps": (
        lambda m: joints(m)[0].trajectories[1].trajectory.center_x.append(0.0),
        "tiny0001/107 mode 0 has 17 x and 16 y",
    ),
}


@pytest.mark.parametrize(("change", "expected"), BROKEN_INTERACTION.values(), ids=BROKEN_INTERACTION.keys())
def test_a_broken_interaction_submission_is_rejected(tmp_path, change, expected):
    message = submission("interaction")
    change(message)
    assert any(expected in line for line in rejected(tmp_path, message, "interaction"))


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def damage(path):
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF  # in gzip's sum
    path.write_bytes(bytes(data))


def plain_tar(path):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("x"))


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"")


def link(path):
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("x")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)


def whole():
    return submission().SerializeToString()


def of_shards(*names):
    message = submission()
    return {name: shard(message, index, index + 1) for index, name in enumerate(names)}


BROKEN_ARCHIVES = {
    "cut": (lambda p: (pack(p, {"x": whole()}), cut(p, 0.7)), "cannot be read to its end"),
    "damaged": (lambda p: (pack(p, {"x": whole()}), damage(p)), "cannot be read to its end"),
    "not gzipped": (plain_tar, "no gzipped tar but a tar that is not gzipped"),
    "zip": (zipped, "no gzipped tar but a zip file"),
    "the message itself": (lambda p: p.write_bytes(whole()), "no gzipped tar but something else"),
    "empty file": (lambda p: p.write_bytes(b""), "no gzipped tar but an empty file"),
    "no file inside": (lambda p: pack(p, {}), "the archive holds no file"),
    "a text inside": (lambda p: pack(p, {"notes.txt": b"hello"}), "no MotionChallengeSubmission: notes.txt (5 bytes)"),
    "another message inside": (
        lambda p: pack(p, {"x": scenes_record()}),
        "a file is no MotionChallengeSubmission: x",
    ),
    "an empty message": (lambda p: pack(p, {"x": b""}), "no MotionChallengeSubmission: x (0 bytes)"),
    "finder's files": (
        lambda p: pack(p, {"x": whole(), "._x": b"\x00\x05\x16\x07"}),
        "no MotionChallengeSubmission: ._x (4 bytes)",
    ),
    "a link": (link, "no plain file: x"),
    "a shard missing": (
        lambda p: pack(p, of_shards("x-00000-of-00003", "x-00002-of-00003")),
        "shards are missing: x-00001-of-00003",
    ),
    "a shard too many": (
        lambda p: pack(p, of_shards("x-00000-of-00002", "x-00001-of-00002", "x-00002-of-00002")),
        "shards are numbered beyond their count: x-00002-of-00002",
    ),
    "two sets": (lambda p: pack(p, of_shards("x-00000-of-00001", "y-00000-of-00001")), "shards do not make one set"),
}


def scenes_record():
    scenario = schema.Scenario(scenario_id="s", current_time_index=10)
    scenario.tracks.add(id=3)
    return scenario.SerializeToString()


@pytest.mark.parametrize(("make", "expected"), BROKEN_ARCHIVES.values(), ids=BROKEN_ARCHIVES.keys())
def test_a_broken_archive_is_rejected(tmp_path, make, expected):
    path = tmp_path / "s.tar.gz"
    make(path)
    lines = check_submission(path, targets_of(scenes())).problems.rejected
    assert any(expected in line for line in lines), lines


def test_a_file_twice_in_the_archive_is_rejected(tmp_path):
    path = tmp_path / "s.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x"))
        archive.addfile(tarfile.TarInfo("x"))
    assert "a file is in the archive twice: x" in check_submission(path).problems.rejected


def test_shards_that_contradict_each_other_are_rejected(tmp_path):
    message = submission()
    first = shard(message, 0, 1)
    message.unique_method_name = "another"
    path = pack(tmp_path / "s.tar.gz", {"x-00000-of-00002": first, "x-00001-of-00002": shard(message, 1, 3)})
    lines = check_submission(path, targets_of(scenes())).problems.rejected
    assert lines == ["the shards do not say the same of the submission: x-00001-of-00002"]


def test_many_alike_problems_make_one_line(tmp_path):
    message = submission()
    for scenario in message.scenario_predictions:
        for item in scenario.single_predictions.predictions:
            item.trajectories[5].confidence = -1
    assert rejected(tmp_path, message) == [
        "confidences must be finite and not negative: tiny0000/100, tiny0000/107, tiny0000/114, tiny0001/100 and 5 more"
    ]


def test_positions_far_from_the_object_are_remarked_but_not_rejected(tmp_path):
    message = submission()
    path = modes(message)[0].trajectory
    path.center_x[:] = [value - scenes()[1].origin_m[0] for value in path.center_x]
    archive = pack(tmp_path / "s.tar.gz", {"x": message.SerializeToString()})
    problems = check_submission(archive, targets_of(scenes())).problems
    assert problems.rejected == []
    assert len(problems.remarks) == 1
    assert "tiny0001/100 mode 0" in problems.remarks[0]


def test_without_the_records_ids_are_compared_with_each_other_only(tmp_path):
    message = submission()
    objects(message)[0].object_id = 55
    message.scenario_predictions.pop()
    path = pack(tmp_path / "s.tar.gz", {"x": message.SerializeToString()})
    assert check_submission(path).problems.rejected == []


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="limtr submit"):
        check_submission(tmp_path / "nothing.tar.gz")
