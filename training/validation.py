"""Validation while training: every rank predicts its part of the scenes, and what they measured is merged, never averaged."""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.accumulate import MotionMetrics
from evaluation.scoring import SceneReader, evaluate_model, result_of, score
from limtr.predictor import MotionPredictor
from training.distributed import ALONE, Ranks

SCENES_AT_ONCE = 16


def rank_rows(num_scenes: int, rank: int, num_ranks: int) -> list[int]:
    """The scenes that one rank predicts: whole batches, in turn, so that every batch is one that a process alone would make."""
    starts = range(rank * SCENES_AT_ONCE, num_scenes, num_ranks * SCENES_AT_ONCE)
    return [row for start in starts for row in range(start, min(start + SCENES_AT_ONCE, num_scenes))]


def validate(model: MotionPredictor, source: SceneReader | None, num_scenes: int, ranks: Ranks = ALONE) -> Mapping[str, float]:
    """Waymo's metrics of the model on the first `num_scenes` scenes, the same on every rank; nothing without a source.

    A collective, if there are several ranks.

    Raises:
        ValueError: a scene cannot be scored, or another rank failed.
    """
    if source is None:
        return {}
    if ranks.count == 1:
        rows = range(num_scenes)
        return evaluate_model(model, source, batch_size=SCENES_AT_ONCE, rows=rows, title="validating").summary()
    own = rank_rows(num_scenes, ranks.rank, ranks.count)
    part = MotionMetrics()
    with ranks.all_or_none():
        if own:
            title = f"validating (rank {ranks.rank} of {ranks.count})"
            part = score(source, {"model": model.predict}, batch_size=SCENES_AT_ONCE, rows=own, title=title)["model"]
    whole = MotionMetrics()
    for state in ranks.gathered(part.state()):
        whole.merge(MotionMetrics.from_state(state))
    return result_of(whole).summary()
