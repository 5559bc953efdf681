"""Best, median and worst of every class and bucket."""

import numpy as np
import pytest

from evaluation.buckets import Bucket
from evaluation.report.gallery_choice import choose
from limtr.scene import ObjectType
from tests.evaluation.report.tables import with_errors

LAST = 2


def shown(table, most=60):
    return [(choice.rank, choice.row) for choice in choose(table, LAST, most)]


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([4.0], [("best", 0)]),
        ([4.0, 1.0], [("best", 1), ("worst", 0)]),
        ([4.0, 1.0, 2.0], [("best", 1), ("median", 2), ("worst", 0)]),
        ([5.0, 1.0, 2.0, 3.0, np.nan], [("best", 1), ("median", 2), ("worst", 0)]),
    ],
    ids=["one", "two", "three", "not measured"],
)
def test_few_objects_are_shown_once_each(errors, expected):
    assert shown(with_errors(errors)) == expected


def test_many_objects_of_a_kind_show_several_of_each_rank_and_none_twice():
    found = choose(with_errors(list(range(31))), LAST, 60)
    ranks = {rank: [choice.row for choice in found if choice.rank == rank] for rank in ("best", "median", "worst")}
    assert ranks == {"best": [0, 1, 2], "median": [14, 15, 16], "worst": [28, 29, 30]}
    assert {choice.num_alike for choice in found} == {31}


def test_every_class_and_bucket_is_ranked_by_itself():
    table = with_errors(
        [1.0, 9.0, 2.0, 8.0], kind=[1, 1, 2, 2], bucket=[Bucket.STRAIGHT, Bucket.STRAIGHT, Bucket.STRAIGHT, Bucket.LEFT_TURN]
    )
    found = [(choice.kind, choice.bucket, choice.rank, choice.row) for choice in choose(table, LAST, 60)]
    assert found == [
        (ObjectType.VEHICLE, Bucket.STRAIGHT, "best", 0),
        (ObjectType.VEHICLE, Bucket.STRAIGHT, "worst", 1),
        (ObjectType.PEDESTRIAN, Bucket.STRAIGHT, "best", 2),
        (ObjectType.PEDESTRIAN, Bucket.LEFT_TURN, "best", 3),
    ]


def test_there_are_no_more_than_asked_for_and_the_rarest_go_first():
    table = with_errors(list(range(9)), bucket=[1, 1, 1, 2, 2, 2, 2, 3, 3])
    found = choose(table, LAST, 6)
    assert len(found) == 6
    assert {choice.bucket for choice in found} == {Bucket.STRAIGHT, Bucket.STRAIGHT_LEFT}


def test_the_order_of_the_data_does_not_matter():
    table = with_errors([2.0, 2.0, 2.0, 2.0, 1.0])
    turned = table.keep(np.arange(5)[::-1])
    ids = [[(choice.rank, part.scenario_id[choice.row]) for choice in choose(part, LAST, 60)] for part in (table, turned)]
    assert ids[0] == ids[1]
