"""Means by bin, against numbers worked out by hand."""

import numpy as np
import pytest

from evaluation.buckets import Bucket
from evaluation.report.breakdowns import all_breakdowns, bin_labels, bin_of, break_down, bucket_label, mean_of
from limtr.scene import ObjectType
from tests.evaluation.report.tables import object_table, with_errors

LAST = 2


def test_a_bin_holds_its_lower_edge_and_not_its_upper_one():
    values = np.array([-1.0, 0.0, 9.99, 10.0, 25.0, 1000.0, np.nan])
    assert bin_of(values, (0.0, 10.0, 30.0)).tolist() == [-1, 0, 0, 1, 1, 2, -1]


@pytest.mark.parametrize(
    ("edges", "whole", "labels"),
    [
        ((0.0, 0.5, 2.0), False, ("0–0.5", "0.5–2", "2+")),
        ((0.0, 1.0, 5.0), True, ("0", "1–4", "5+")),
    ],
    ids=["measures", "counts"],
)
def test_labels_say_what_a_bin_holds(edges, whole, labels):
    assert bin_labels(edges, whole=whole) == labels


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    mean = mean_of(np.array([1.0, np.nan, 3.0, 5.0]))
    assert (mean.num_objects, mean.value) == (3, 3.0)
    assert mean.half_width == pytest.approx(1.96 * 2.0 / np.sqrt(3))
    assert mean_of(np.array([7.0])).half_width is None
    assert mean_of(np.array([np.nan])).value is None


def test_each_class_has_its_own_means_and_unknown_objects_are_counted():
    table = with_errors([1.0, 3.0, 10.0, 99.0], kind=[1, 1, 2, 1], speed_mps=[0.1, 0.2, 3.0, np.nan])
    found = break_down(table, bin_of(table.speed_mps, (0.0, 2.0)), ("0–2", "2+"), title="speed", metric="minADE", horizon=LAST)
    assert found.num_unknown == 1
    assert set(found.means) == {ObjectType.VEHICLE, ObjectType.PEDESTRIAN}
    assert [(mean.num_objects, mean.value) for mean in found.means[ObjectType.VEHICLE]] == [(2, 2.0), (0, None)]
    assert [(mean.num_objects, mean.value) for mean in found.means[ObjectType.PEDESTRIAN]] == [(0, None), (1, 10.0)]


def test_the_report_breaks_errors_down_four_ways_by_two_metrics():
    distances = np.full((3, 3, 4), np.nan)
    distances[:, LAST, 0] = [1.0, 2.0, 6.0]
    distances[:, LAST, 2] = [0.0, 1.0, 1.0]
    table = object_table(
        3,
        distances=distances,
        distance_m=[5.0, 12.0, 90.0],
        speed_mps=[0.0, 7.0, 20.0],
        bucket=[Bucket.STATIONARY, Bucket.LEFT_TURN, Bucket.LEFT_TURN],
        lidar_points=[np.nan, 0.0, 3.0],
    )
    found = {(item.title.partition(" [")[0], item.metric): item for item in all_breakdowns(table, LAST)}
    assert len(found) == 8

    def values(title, metric="minADE"):
        return [mean.value for mean in found[title, metric].means[ObjectType.VEHICLE]]

    assert values("distance from the recording vehicle now") == [1.0, 2.0, None, None, None, 6.0]
    assert values("speed now") == [1.0, None, None, 2.0, None, 6.0]
    assert found["trajectory bucket", "minADE"].labels == ("stationary", "left turn")
    assert values("trajectory bucket") == [1.0, 4.0]
    assert values("trajectory bucket", "miss_rate") == [0.0, 1.0]
    assert values("LiDAR points in its box now") == [2.0, 6.0, None, None, None, None]
    assert found["LiDAR points in its box now", "minADE"].num_unknown == 1
    assert [item.ordered for item in found.values()].count(False) == 2


def test_buckets_have_names_for_people():
    assert [bucket_label(bucket) for bucket in (Bucket.LEFT_U_TURN, Bucket.STRAIGHT_RIGHT, Bucket.NONE)] == [
        "left U-turn",
        "straight right",
        "no future",
    ]
