"""Shards: what goes in comes out, TFDS reads it without our code, and nothing half-written is ever seen."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limtr.scene import LidarCrops, Scene, SceneError
from preprocessing.shard_codec import read_example, scene_features
from preprocessing.shard_metadata import Sidecar, read_sidecar, shard_name, sidecar_path, write_sidecar
from preprocessing.shards import (
    SceneSource,
    ShardWriter,
    data_fingerprint,
    decode_scene,
    encode_scene,
    scene_entry,
    scene_index,
    write_dataset_metadata,
)
from tests.builders import tiny_scene


def write_shard(folder: Path, split: str, index: int, scenes: list[Scene]) -> Sidecar:
    with ShardWriter(folder / shard_name(split, index)) as writer:
        for scene in scenes:
            writer.write(scene)
    sidecar = Sidecar(
        split=split,
        index=index,
        rows=writer.rows,
        num_bytes=writer.num_bytes,
        record_bytes=writer.record_bytes,
        sha256=writer.sha256,
        config_hash="",
        settings={},
        source=f"{split}-{index}",
        source_bytes=0,
        source_mtime_ns=0,
        scenes=tuple(writer.entries),
    )
    write_sidecar(folder, sidecar)
    return sidecar


def write_dataset(folder: Path, shards_by_split: dict[tuple[str, int], list[Scene]]) -> list[Sidecar]:
    sidecars = [write_shard(folder, split, index, scenes) for (split, index), scenes in shards_by_split.items()]
    write_dataset_metadata(folder, sidecars)
    return sidecars


def assert_same_scene(stored: Scene, scene: Scene) -> None:
    """Equal but for the documented precision of the LiDAR crops."""
    for field in dataclasses.fields(Scene):
        if field.name != "lidar":
            np.testing.assert_array_equal(getattr(stored, field.name), getattr(scene, field.name), err_msg=field.name)
            assert np.asarray(getattr(stored, field.name)).dtype == np.asarray(getattr(scene, field.name)).dtype, field.name
    assert (stored.lidar is None) == (scene.lidar is None)
    if stored.lidar is None or scene.lidar is None:
        return
    reach = np.abs(scene.lidar.points_m).max(initial=0.0)
    far = scene.lidar.features[:, 0].max(initial=0.0)
    np.testing.assert_allclose(
        stored.lidar.points_m, scene.lidar.points_m, rtol=1e-6, atol=max(0.0005, reach / 32767 / 2) * 1.01
    )
    np.testing.assert_allclose(
        stored.lidar.features[:, 0], scene.lidar.features[:, 0], rtol=1e-6, atol=max(0.001, far / 65535 / 2) * 1.01
    )
    clipped = np.clip(scene.lidar.features[:, 1:], -65504, 65504)
    np.testing.assert_allclose(stored.lidar.features[:, 1:], clipped, rtol=2**-11, atol=2**-25)
    np.testing.assert_array_equal(stored.lidar.count, scene.lidar.count)
    np.testing.assert_array_equal(stored.lidar.count_in_box, scene.lidar.count_in_box)
    np.testing.assert_equal(stored.lidar.empty_share, scene.lidar.empty_share)
    assert stored.lidar.best_shift == scene.lidar.best_shift


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    num_tracks=st.integers(1, 9),
    num_steps=st.sampled_from([11, 91]),
    num_features=st.integers(0, 7),
    with_lidar=st.booleans(),
    with_signals=st.booleans(),
    data=st.data(),
)
def test_round_trip_is_exact_but_for_the_lidar_precision(
    seed: int, num_tracks: int, num_steps: int, num_features: int, with_lidar: bool, with_signals: bool, data: st.DataObject
) -> None:
    scene = tiny_scene(
        seed,
        num_tracks=num_tracks,
        num_steps=num_steps,
        num_targets=data.draw(st.integers(0, num_tracks)),
        num_features=num_features,
        with_lidar=with_lidar,
        with_signals=with_signals,
    )
    assert_same_scene(decode_scene(encode_scene(scene)), scene)


@pytest.mark.parametrize("num_tracks", [1, 5])
def test_a_record_is_read_as_tfds_reads_it(num_tracks: int) -> None:
    data = encode_scene(tiny_scene(4, num_tracks=num_tracks, num_targets=num_tracks - 1, with_lidar=num_tracks > 1))
    ours, expected = read_example(data), scene_features().deserialize_example_np(data)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
        if isinstance(value, np.ndarray):
            assert (ours[name].dtype, ours[name].shape) == (value.dtype, value.shape), name


def test_bytes_that_are_no_record_are_refused_by_field() -> None:
    from tensorflow_datasets.proto import tf_example_pb2

    with pytest.raises(SceneError, match="run `limtr preprocess` again"):
        decode_scene(b"\xff\xff")
    record = tf_example_pb2.Example.FromString(encode_scene(tiny_scene(0)))
    record.features.feature["map_points_m"].bytes_list.value[0] += b"\x00"
    with pytest.raises(SceneError, match=r"field map_points_m has \d+ bytes"):
        decode_scene(record.SerializeToString())
    del record.features.feature["map_points_m"]
    with pytest.raises(SceneError, match="0 values of field map_points_m"):
        decode_scene(record.SerializeToString())


def test_a_reader_can_ask_for_the_first_points_of_every_frame_only(tmp_path: Path) -> None:
    scenes = [tiny_scene(seed) for seed in range(2)]
    write_dataset(tmp_path, {("train", 0): scenes})
    for number in (0, 2, 10_000):
        for whole, short in zip(
            SceneSource(tmp_path, "train"), SceneSource(tmp_path, "train", lidar_points=number), strict=True
        ):
            assert whole.lidar is not None
            assert short.lidar is not None
            assert whole.lidar.count.max() > 2
            np.testing.assert_array_equal(short.lidar.count, np.minimum(whole.lidar.count, number))
            np.testing.assert_array_equal(short.lidar.count_in_box, whole.lidar.count_in_box)
            for agent in range(len(whole.lidar.count)):
                for frame in range(11):
                    for ours, all_of_them in zip(short.lidar.frame(agent, frame), whole.lidar.frame(agent, frame), strict=True):
                        np.testing.assert_array_equal(ours, all_of_them[:number])


def with_crops(scene: Scene, points: list[list[float]], features: list[list[float]]) -> Scene:
    count = np.zeros((3, 11), dtype=np.int64)
    count[1, 4] = len(points)
    crops = LidarCrops(
        points_m=np.array(points, dtype=np.float32),
        features=np.array(features, dtype=np.float32),
        count=count,
        count_in_box=count * 3,
        empty_share=float("nan"),
        best_shift=-7,
    )
    return dataclasses.replace(scene, lidar=crops)


@pytest.mark.parametrize(
    ("points", "features"),
    [
        pytest.param([[32.7, -32.7, 0.0]], [[75.0, 0.2, 0.0]], id="just within int16 millimetres"),
        pytest.param([[250.0, -0.25, 1.0]], [[75.0, 0.2, 0.0]], id="a box far beyond int16 millimetres"),
        pytest.param([[1.0, 1.0, 1.0]], [[400.0, 0.2, 1.5]], id="a range beyond uint16 at 2 mm"),
        pytest.param([[1.0, 1.0, 1.0]], [[0.0, 1e30, 70000.0]], id="intensities beyond float16"),
    ],
)
def test_extreme_lidar_values_never_overflow(points: list[list[float]], features: list[list[float]]) -> None:
    scene = with_crops(tiny_scene(), points, features)
    stored = decode_scene(encode_scene(scene))
    assert stored.lidar is not None
    assert np.isfinite(stored.lidar.features).all()
    assert_same_scene(stored, scene)


def test_states_that_begin_with_zero_and_large_ids_come_back() -> None:
    scene = tiny_scene(3)
    states = scene.track_states.copy()
    states[..., 7:] = 0.0
    scene = dataclasses.replace(scene, track_states=states, track_id=scene.track_id + 2**40)
    assert_same_scene(decode_scene(encode_scene(scene)), scene)


def test_the_sign_of_a_zero_comes_back() -> None:
    scene = tiny_scene(3, gaps=False)
    states = scene.track_states.copy()
    states[..., 7] = np.where(np.arange(scene.num_steps) % 2, 0.0, -0.0)
    stored = decode_scene(encode_scene(dataclasses.replace(scene, track_states=states)))
    np.testing.assert_array_equal(np.signbit(stored.track_states), np.signbit(states))


def test_a_record_has_its_fields_in_sorted_order_so_that_equal_scenes_have_equal_bytes() -> None:
    from tensorflow_datasets.proto import tf_example_pb2

    data = encode_scene(tiny_scene())
    assert tf_example_pb2.Example.FromString(data).SerializeToString(deterministic=True) == data


def test_numbers_that_a_field_cannot_hold_are_refused_by_name() -> None:
    scene = tiny_scene()
    with pytest.raises(SceneError, match=r"tiny0000.*track_type must be within 0\.\.255, has 1\.\.300"):
        encode_scene(dataclasses.replace(scene, track_type=np.where(np.arange(6) == 2, 300, 1)))
    with pytest.raises(SceneError, match=r"ranges of at least 0 m"):
        encode_scene(with_crops(scene, [[1.0, 1.0, 1.0]], [[-1.0, 0.2, 0.0]]))


@pytest.mark.parametrize(("num_tracks", "num_features"), [(2, 0), (40, 5), (6, 60)])
def test_only_valid_states_that_change_and_each_map_point_once_are_stored(num_tracks: int, num_features: int) -> None:
    scene = tiny_scene(num_tracks=num_tracks, num_targets=2, num_features=num_features, with_lidar=False, with_signals=False)
    repeated = scene.track_states.copy()
    repeated[-1] = repeated[-1, scene.current_step] * scene.track_valid[-1, :, None]  # parked
    scene = dataclasses.replace(scene, track_states=repeated)
    moving = int(scene.track_valid[:-1].sum())
    states_and_map = 4 * 5 * moving + 3 * 4 * len(scene.map_points_m)
    small_fields = (
        scene.track_valid.size / 8 + 9 * num_tracks + 13 * num_features + len(scene.polyline_length) + 8 * scene.num_steps
    )
    small_fields += 9 / 8 * scene.track_valid.sum() + 4 * 9 * num_tracks  # the bits of changes; sizes and z once per track
    overhead = len(encode_scene(scene)) - states_and_map - small_fields
    assert -36 * num_tracks < overhead < 1200  # names of the fields


def test_source_reads_all_splits_at_random_and_keeps_the_order_of_shards(tmp_path: Path) -> None:
    scenes = [tiny_scene(seed) for seed in range(5)]
    write_dataset(tmp_path, {("train", 3): scenes[2:4], ("train", 0): scenes[:2], ("test", 0): [tiny_scene(9, num_steps=11)]})
    source = SceneSource(tmp_path, "train")
    assert len(source) == 4
    assert source.scenario_ids() == tuple(f"tiny{seed:04d}" for seed in range(4))
    assert [scene.scenario_id for scene in source] == list(source.scenario_ids())
    assert_same_scene(source[-1], scenes[3])
    assert [scene.scenario_id for scene in source[1:3]] == ["tiny0001", "tiny0002"]
    assert [entry.target_types for entry in scene_index(tmp_path, "train")] == [(1, 2, 3)] * 4
    with pytest.raises(IndexError, match="there is no scene 4"):
        source[4]
    assert not SceneSource(tmp_path, "test")[0].has_future


def test_each_scene_can_be_read_without_its_neighbours(tmp_path: Path) -> None:
    from array_record.python.array_record_module import ArrayRecordReader

    write_dataset(tmp_path, {("train", 0): [tiny_scene(1), tiny_scene(2)]})
    options = ArrayRecordReader(str(tmp_path / shard_name("train", 0))).writer_options_string().split(",")
    assert {"group_size:1", "uncompressed"} <= set(options)


def test_metadata_are_replaced_whole_while_someone_reads_them(tmp_path: Path) -> None:
    first = write_dataset(tmp_path, {("train", 0): [tiny_scene(1)]})
    before = (tmp_path / "dataset_info.json").read_text()
    with (tmp_path / "dataset_info.json").open() as reader:
        write_dataset_metadata(tmp_path, [*first, write_shard(tmp_path, "train", 1, [tiny_scene(2)])])
        assert reader.read() == before
    assert (tmp_path / "dataset_info.json").read_text() != before


def test_source_answers_from_the_records_when_sidecars_were_left_behind(tmp_path: Path) -> None:
    write_dataset(tmp_path, {("train", 0): [tiny_scene(1), tiny_scene(2)]})
    sidecar_path(tmp_path, "train", 0).unlink()
    assert SceneSource(tmp_path, "train").scenario_ids() == ("tiny0001", "tiny0002")
    with pytest.raises(FileNotFoundError, match="0 scenes indexed, 2 stored"):
        scene_index(tmp_path, "train")


def test_source_travels_to_other_processes_before_and_after_it_was_read(tmp_path: Path) -> None:
    write_dataset(tmp_path, {("train", 0): [tiny_scene(1)]})
    source = SceneSource(tmp_path, "train")
    assert source[0].scenario_id == "tiny0001"
    for copy in (pickle.loads(pickle.dumps(source)), pickle.loads(pickle.dumps(SceneSource(tmp_path, "train")))):
        assert copy[0].scenario_id == "tiny0001"


def test_source_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="limtr preprocess"):
        SceneSource(tmp_path, "train")
    write_dataset(tmp_path, {("train", 0): [tiny_scene()]})
    with pytest.raises(FileNotFoundError, match=r"no split 'validation', only \['train'\]"):
        SceneSource(tmp_path, "validation")


def test_a_damaged_shard_is_named_and_the_others_can_be_read(tmp_path: Path) -> None:
    write_dataset(tmp_path, {("train", 0): [tiny_scene(1)], ("train", 1): [tiny_scene(2)]})
    shard = tmp_path / shard_name("train", 0)
    damaged = bytearray(shard.read_bytes())
    damaged[2000] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"scene 0 of split 'train' cannot be read.*mismatch.*limtr preprocess"):
        SceneSource(tmp_path, "train")[0]
    assert SceneSource(tmp_path, "train")[1].scenario_id == "tiny0002"
    shard.unlink()
    with pytest.raises(ValueError, match=rf"{shard.name}.*limtr preprocess"):
        SceneSource(tmp_path, "train")[0]


def test_tfds_opens_the_dataset_without_our_code_and_without_tensorflow(tmp_path: Path) -> None:
    scene = tiny_scene(3)
    write_dataset(tmp_path, {("train", 4): [tiny_scene(2), scene], ("train", 7): [tiny_scene(5)]})
    program = f"""
import sys
import tensorflow_datasets as tfds
source = tfds.builder_from_directory({str(tmp_path)!r}).as_data_source("train")
record = source[1]
print(len(source), record["scenario_id"].decode(), record["map_points_m"].shape[0], float(record["origin_m"][0]))
print(len(tfds.builder_from_directory({str(tmp_path)!r}).as_data_source("train[2:]")))
assert not {{"tensorflow", "limtr", "preprocessing", "torch"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "tiny0003", str(len(scene.map_points_m)), str(scene.origin_m[0]), "1"]


def test_dataset_grows_without_renaming_what_exists(tmp_path: Path) -> None:
    first = write_dataset(tmp_path, {("train", 5): [tiny_scene(5)]})
    before = (tmp_path / shard_name("train", 5)).read_bytes()
    print_before = data_fingerprint(tmp_path)
    more = [
        write_shard(tmp_path, "train", 0, [tiny_scene(0), tiny_scene(1)]),
        write_shard(tmp_path, "validation", 0, [tiny_scene(7)]),
    ]
    write_dataset_metadata(tmp_path, first + more)
    assert (tmp_path / shard_name("train", 5)).read_bytes() == before
    assert SceneSource(tmp_path, "train").scenario_ids() == ("tiny0000", "tiny0001", "tiny0005")
    assert SceneSource(tmp_path, "train")[2].scenario_id == "tiny0005"
    assert SceneSource(tmp_path, "validation")[0].scenario_id == "tiny0007"
    assert data_fingerprint(tmp_path) != print_before


def test_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    prints = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_dataset(tmp_path / name, {("train", 0): [tiny_scene(seed)]})
        prints.append(data_fingerprint(tmp_path / name))
    assert prints[0] == prints[1] != prints[2]
    (tmp_path / "d").mkdir()
    with pytest.raises(FileNotFoundError, match="no finished shard"):
        data_fingerprint(tmp_path / "d")


def test_index_tells_types_validity_and_distance_to_the_recording_vehicle(tmp_path: Path) -> None:
    scene = tiny_scene(0)
    states, valid = scene.track_states.copy(), scene.track_valid.copy()
    now = scene.current_step
    states[0, now, :2] = states[scene.sdc_track, now, :2] + np.array([3.0, 4.0], dtype=np.float32)
    states[1, now], valid[1, now] = 0.0, False
    entry = scene_entry(dataclasses.replace(scene, track_states=states, track_valid=valid), 2)
    assert (entry.row, entry.target_types, entry.target_valid) == (2, (1, 2, 3), (True, False, True))
    assert entry.target_distance_m[0] == pytest.approx(5.0, abs=1e-3)
    assert entry.target_distance_m[1] is None
    unknown = scene_entry(dataclasses.replace(scene, sdc_track=-1), 0)
    assert unknown.target_distance_m == (None, None, None)


def test_sidecar_comes_back_and_a_foreign_one_is_refused(tmp_path: Path) -> None:
    sidecar = write_shard(tmp_path, "validation", 12, [tiny_scene(1), tiny_scene(2, with_lidar=False)])
    path = sidecar_path(tmp_path, "validation", 12)
    assert read_sidecar(path) == sidecar
    path.write_text('{"rows": 3, "scenes": {}, "quarantine": []}')
    with pytest.raises(ValueError, match=r"not a sidecar of this version.*preprocess that shard again"):
        read_sidecar(path)
