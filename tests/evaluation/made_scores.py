"""Scene scores of made models: what a bootstrap sees, without any model."""

from __future__ import annotations

import numpy as np

from evaluation.average_precision import outcomes
from evaluation.metric_config import CHALLENGE_HORIZONS
from evaluation.scene_scores import SceneScores

MODES = 6


def made_scores(
    num_scenes: int, *, truth_seed: int = 0, model_seed: int = 0, gain_m: float = 0.0, seed_noise_m: float = 0.0,
    ties: bool = False,
) -> SceneScores:  # fmt: skip
    """Objects of all classes in scenes of unlike difficulty, predicted by a model that is `gain_m` better on average.

    Args:
        num_scenes: scenes with two to five objects each.
        truth_seed: of the scenes and objects: equal for models that are compared.
        model_seed: of the model's own errors and of its training's luck.
        gain_m: how much smaller its errors are.
        seed_noise_m: spread of the error that a whole training shares.
        ties: scores in tenths, so that many are equal.
    """
    truth, model = np.random.default_rng(truth_seed), np.random.default_rng([model_seed, 7])
    scene = np.repeat(np.arange(num_scenes), truth.integers(2, 6, num_scenes))
    kinds = truth.integers(1, 4, len(scene))
    hard = (truth.gamma(2.0, 0.5, num_scenes) + 0.5)[scene]
    luck = seed_noise_m * model.standard_normal()
    error = np.maximum(hard + 0.3 * model.standard_normal(len(scene)) + luck - gain_m, 0.01)
    horizons = np.array([0.4, 0.9, 2.0])
    unknown = truth.random((len(scene), 3)) < 0.1
    distances = np.full((len(scene), 3, 4), np.nan)
    distances[..., 0] = error[:, None] * horizons
    distances[..., 1] = 2.0 * error[:, None] * horizons
    distances[..., 2] = error[:, None] * horizons > 1.5
    distances[unknown] = np.nan
    distances[..., 3] = truth.random((len(scene), 3)) < 0.05
    scores = model.random((len(scene), MODES))
    scores = np.round(scores, 1) if ties else scores
    matched = model.random((len(scene), 3, MODES)) < 0.6 / (1.0 + error[:, None, None])
    outcome = np.stack([outcomes(scores, matched[:, index], ~unknown[:, index]) for index in range(3)], axis=1)
    return SceneScores(
        bucketing="2024",
        scenario_ids=np.array([f"s{number:05d}" for number in range(num_scenes)]),
        scene=scene.astype(np.int64),
        object_id=np.arange(len(scene), dtype=np.int64),
        rows={
            "object_type": kinds.astype(np.int64),
            "bucket": truth.integers(-1, 8, len(scene)).astype(np.int64),
            "distances": distances,
            "scores": scores,
            "outcomes": outcome,
        },
    )


assert len(CHALLENGE_HORIZONS) == 3
