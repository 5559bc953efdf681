"""Prediction: the predictor's answer, per centre agent and in world coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

TRAJECTORY_FIELDS = ("x", "y", "log_sigma_x", "log_sigma_y", "rho", "vx", "vy")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Modes of C centre agents in their own frames.

    `scores` are raw softmax values of the kept modes: they are comparable across agents and do not sum to one.
    """

    trajectories: torch.Tensor
    """(C, K, 80, 7) `TRAJECTORY_FIELDS`, 10 Hz, step 0 is t = 0.1 s"""
    scores: torch.Tensor
    """(C, K) best first"""


@dataclass(frozen=True, kw_only=True)
class ScenePrediction:
    """Modes of the predicted agents of one scenario in world coordinates."""

    scenario_id: str
    object_id: npt.NDArray[np.int64]
    """(C,)"""
    xy_m: npt.NDArray[np.float64]
    """(C, K, 80, 2) world x, y at 10 Hz, first at t = 0.1 s"""
    scores: npt.NDArray[np.float64]
    """(C, K)"""
