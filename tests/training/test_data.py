import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limtr.agent_view import build_agent_batch
from limtr.batch import SceneBatch, collate
from limtr.config import tiny
from limtr.scene import ObjectType
from preprocessing.shards import scene_entry
from tests.builders import tiny_scene
from training.augment import mirrored
from training.data import (
    SelectedScenes,
    _leave_signals_to_parent,
    epoch_batches,
    load_batches,
    rank_share,
    scene_bytes,
    select,
    spread_rows,
)

SCENES = [tiny_scene(seed, num_tracks=6, num_targets=4) for seed in range(5)]
INDEX = [scene_entry(scene, row) for row, scene in enumerate(SCENES)]
ALL = (ObjectType.VEHICLE, ObjectType.PEDESTRIAN, ObjectType.CYCLIST)


@pytest.mark.parametrize(
    ("number", "fraction", "rows"),
    [(10, 0.2, [0, 5]), (10, 1.0, list(range(10))), (3, 0.01, [0]), (0, 0.5, []), (7, 0.5, [0, 1, 3, 5])],
)
def test_a_fraction_of_the_scenes_is_spread_evenly(number: int, fraction: float, rows: list[int]) -> None:
    assert spread_rows(number, fraction) == rows


def test_a_class_subset_counts_what_it_leaves_out() -> None:
    chosen = select(INDEX, range(5), (ObjectType.CYCLIST,), None)
    assert chosen.num_targets == 5  # one cyclist among the four targets of each scene
    assert (chosen.targets_left_out, chosen.scenes_left_out) == (15, 0)
    assert {kind for kinds in chosen.types for kind in kinds} == {ObjectType.CYCLIST}


def test_a_distance_subset_keeps_the_near_targets_only() -> None:
    limit = 30.0
    chosen = select(INDEX, range(5), ALL, limit)
    expected = sum(distance is not None and distance <= limit for entry in INDEX for distance in entry.target_distance_m)
    assert 0 < chosen.num_targets == expected < 20
    unknown = [replace(entry, target_distance_m=(None,) * 4) for entry in INDEX]
    assert select(unknown, range(5), ALL, limit).rows == ()


def test_targets_that_are_invalid_now_are_not_selected() -> None:
    spoilt = [replace(entry, target_valid=(False, True, True, True)) for entry in INDEX]
    assert all(0 not in kept for kept in select(spoilt, range(5), ALL, None).targets)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 99), st.integers(0, 9))
def test_an_epoch_visits_every_scene_once_in_an_order_of_its_own(number: int, size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(number, size, seed, epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(number))
    assert batches == epoch_batches(number, size, seed, epoch)
    assert all(len(batch) == size for batch in batches[:-1])
    if number > 20:
        assert batches != epoch_batches(number, size, seed, epoch + 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 7), st.integers(0, 9))
def test_ranks_share_every_batch_with_no_sample_lost_or_doubled(number: int, size: int, world_size: int, epoch: int) -> None:
    batches = epoch_batches(number, size, 3, epoch)
    shares = [[rank_share(batch, rank, world_size) for batch in batches] for rank in range(world_size)]
    together = [[row for share in shares for row in share[step]] for step in range(len(batches))]
    assert [sorted(batch) for batch in together] == [sorted(batch) for batch in batches]
    assert sorted(row for batch in together for row in batch) == list(range(number))
    lengths = [[len(share[step]) for share in shares] for step in range(len(batches))]
    assert all(max(each) - min(each) <= 1 for each in lengths)


def test_selected_scenes_hold_the_kept_targets_only_and_remember_within_bounds() -> None:
    chosen = select(INDEX, range(5), (ObjectType.PEDESTRIAN,), None)
    reads: list[int] = []

    class Reader:
        def __len__(self) -> int:
            return len(SCENES)

        def __getitem__(self, row: int):  # type: ignore[no-untyped-def]
            reads.append(row)
            return SCENES[row]

    one = scene_bytes(SCENES[0].keep_targets(np.array([1])))
    scenes = SelectedScenes(Reader(), chosen, cache_bytes=int(one * 1.5))
    for _ in range(2):
        for index in range(len(scenes)):
            scene = scenes[index]
            assert (scene.track_type[scene.tracks_to_predict] == ObjectType.PEDESTRIAN).all()
    assert len(reads) == 2 * 5 - 1  # one of the five fitted into the memory


def test_dropped_vehicles_change_with_the_epoch_but_not_with_the_reading() -> None:
    chosen = select(INDEX, range(5), ALL, None)
    scenes = SelectedScenes(SCENES, chosen, drop_vehicles=0.5, seed=3)

    def types() -> list[list[int]]:
        return [scene.track_type[scene.tracks_to_predict].tolist() for scene in (scenes[index] for index in range(5))]

    first = types()
    assert types() == first
    others = {tuple(map(tuple, first))}
    for epoch in range(1, 4):
        scenes.epoch = epoch
        others.add(tuple(map(tuple, types())))
        assert all(kinds.count(2) == 1 and kinds.count(3) == 1 for kinds in types())
    assert len(others) > 1


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_loader_that_goes_on_within_an_epoch_gives_the_batches_that_are_left(done: int, workers: int) -> None:
    def read(batches: list[list[int]], in_processes: int) -> list[SceneBatch]:
        scenes = SelectedScenes(SCENES, select(INDEX, range(5), ALL, None), drop_vehicles=0.5, seed=3)
        scenes.epoch = 2
        return list(load_batches(scenes, batches, num_lidar_points=8, workers=in_processes, pin_memory=False))

    batches = epoch_batches(5, 2, 3, 2)
    whole, rest = read(batches, 0), read(batches[done:], workers)
    assert [len(batch.scenario_ids) for batch in whole] == [2, 2, 1]
    assert len(rest) == len(batches) - done
    for expected, batch in zip(whole[done:], rest, strict=True):
        assert batch.scenario_ids == expected.scenario_ids
        torch.testing.assert_close(batch.center_object_id, expected.center_object_id, rtol=0, atol=0)
        torch.testing.assert_close(batch.track_states, expected.track_states, rtol=0, atol=0)
        torch.testing.assert_close(batch.lidar_points, expected.lidar_points, rtol=0, atol=0)


def test_scenes_are_mirrored_by_seed_epoch_and_scene_alone() -> None:
    chosen = select(INDEX, range(5), ALL, None)
    scenes = SelectedScenes(SCENES, chosen, mirror=0.5, seed=1)

    def flipped() -> list[bool]:
        return [bool((scenes[row].map_points_m[:, 1] == -SCENES[row].map_points_m[:, 1]).all()) for row in range(5)]

    found = set()
    for epoch in range(4):
        scenes.epoch = epoch
        assert flipped() == flipped()
        found.add(tuple(flipped()))
    assert len(found) > 1
    always = SelectedScenes(SCENES, chosen, mirror=1.0, seed=1)
    assert all((always[row].track_states[..., 1] == -SCENES[row].track_states[..., 1]).all() for row in range(5))


def test_a_mirrored_scene_is_the_scene_with_every_view_mirrored() -> None:
    scene = SCENES[0]
    flipped = mirrored(scene).validate()
    there, here = (build_agent_batch(collate([item], num_lidar_points=16), tiny().view) for item in (scene, flipped))
    assert there.center_future is not None
    assert here.center_future is not None
    mirror = torch.tensor([1.0, -1.0, 1.0, -1.0])
    torch.testing.assert_close(here.center_future, there.center_future * mirror, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(here.agent_last_position[..., 1], -there.agent_last_position[..., 1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(here.polyline_center[..., 1], -there.polyline_center[..., 1], atol=1e-4, rtol=1e-4)
    assert here.lidar_points is not None
    assert there.lidar_points is not None
    torch.testing.assert_close(here.lidar_points[..., 1], -there.lidar_points[..., 1])
    assert mirrored(flipped).track_states.tolist() == scene.track_states.tolist()


def test_readers_leave_signals_to_the_training_process() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        _leave_signals_to_parent(0)
        assert [signal.getsignal(number) for number in numbers] == [signal.SIG_IGN, signal.SIG_IGN]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


READ_FOR_EVER = """
import os
from limtr.scene import PREDICTED_TYPES
from preprocessing.shards import scene_entry
from tests.builders import tiny_scene
from training.data import SelectedScenes, load_batches, select

class Telling(SelectedScenes):
    def __getitem__(self, index):
        print(os.getpid(), flush=True)
        return super().__getitem__(index)

if __name__ == "__main__":
    scenes = [tiny_scene(0, num_tracks=2, num_targets=1)]
    data = Telling(scenes, select([scene_entry(scenes[0], 0)], range(1), PREDICTED_TYPES, None))
    for _ in load_batches(data, [[0]] * 1000, num_lidar_points=None, workers=1, pin_memory=False):
        input()
"""


def test_readers_end_with_the_process_that_they_read_for_even_if_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "read.py").write_text(READ_FOR_EVER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "read.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        reader = psutil.Process(int(process.stdout.readline()))
        process.kill()
        psutil.wait_procs([reader], timeout=60)
        left = reader.is_running()
        if left:
            reader.kill()
    assert not left
