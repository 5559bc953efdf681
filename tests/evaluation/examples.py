"""Small truths and predictions with answers that can be worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.metric_config import NUM_TRACK_STEPS
from evaluation.oracle import oracle_folder
from evaluation.scenario_predictions import ScenarioPredictions
from limtr.scene import Scene
from preprocessing.shard_metadata import Sidecar, write_sidecar
from preprocessing.shards import ShardWriter, read_sidecars, shard_name, write_dataset_metadata

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics"


def straight_tracks(num_tracks: int = 2, speed_mps: float = 10.0, apart_m: float = 50.0) -> np.ndarray:
    """(A, 91, 7) tracks along x beside each other, 4 m long and 2 m wide, at x = 0 at the current step."""
    time_s = (np.arange(NUM_TRACK_STEPS) - 10) * 0.1
    states = np.zeros((num_tracks, NUM_TRACK_STEPS, 7))
    states[..., 0] = speed_mps * time_s
    states[..., 1] = apart_m * np.arange(num_tracks)[:, None]
    states[..., 2:4] = (4.0, 2.0)
    states[..., 5] = speed_mps
    return states


def one_object(
    offsets_m: np.ndarray, scores: np.ndarray, *, states: np.ndarray | None = None, valid: np.ndarray | None = None,
    scenario_id: str = "s", kind: int = 1,
) -> ScenarioPredictions:  # fmt: skip
    """Predictions of track 0: the truth plus an offset (x, y) per mode; `offsets_m` (K, 2) or (K, 16, 2)."""
    states = straight_tracks() if states is None else states
    valid = np.ones(states.shape[:2], dtype=bool) if valid is None else valid
    offsets = np.asarray(offsets_m, dtype=np.float64)
    offsets = offsets[:, None] if offsets.ndim == 2 else offsets
    path = states[0, 15::5, :2] + offsets
    return ScenarioPredictions(
        scenario_id=scenario_id, track_type=np.full(len(states), kind), track_states=states, track_valid=valid,
        group_rows=np.array([[0]]), xy_m=path[None, :, None], scores=np.asarray(scores, dtype=np.float64)[None],
    )  # fmt: skip


def write_dataset(folder: Path, scenes: dict[str, list[Scene]]) -> Path:
    """A dataset of one shard per split."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, items in scenes.items():
        with ShardWriter(folder / shard_name(split, 0)) as writer:
            for scene in items:
                writer.write(scene)
        sidecar = Sidecar(
            split=split, index=0, rows=writer.rows, num_bytes=writer.num_bytes, record_bytes=writer.record_bytes,
            sha256=writer.sha256, config_hash="test", settings={}, source="test", source_bytes=0, source_mtime_ns=0,
            scenes=tuple(writer.entries),
        )  # fmt: skip
        write_sidecar(folder, sidecar)
    write_dataset_metadata(folder, read_sidecars(folder))
    return folder


needs_oracle = pytest.mark.skipif(
    not (oracle_folder() / "bin" / "python").exists(), reason="no oracle environment here (make oracle builds it)"
)
