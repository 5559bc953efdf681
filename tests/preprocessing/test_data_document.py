"""docs/data.md: its code runs where only TFDS is known, and its table is that of the shards."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from evaluation.predictions import COLUMNS
from preprocessing.shard_codec import FIELDS, SCALARS
from preprocessing.shards import SceneSource
from preprocessing.womd.tfrecord import write_records
from tests.preprocessing.record_files import golden_record
from tests.preprocessing.test_pipeline import preprocess

DOCUMENT = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_the_code_opens_a_dataset_with_tfds_alone(tmp_path: Path) -> None:
    motion = tmp_path / "raw" / "scenario" / "training"
    motion.mkdir(parents=True)
    write_records(motion / "a.tfrecord", [golden_record()])
    assert preprocess(tmp_path / "raw", tmp_path / "DATA", points=64) == 0
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    names = "states, valid, world_xyz, points_m, polyline_length"
    code += """
polyline_length = [len(line) for line in polylines]
assert not {"tensorflow", "limtr", "preprocessing", "torch"} & set(__import__("sys").modules)
"""
    code += f"np.savez('found.npz', **{{name: eval(name) for name in {names.split(', ')}}})\n"
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    scene = SceneSource(tmp_path / "DATA", "train")[0]
    np.testing.assert_array_equal(found["valid"], scene.track_valid)
    np.testing.assert_array_equal(found["states"], scene.track_states)
    np.testing.assert_array_equal(found["polyline_length"], scene.polyline_length)
    np.testing.assert_array_equal(found["world_xyz"], scene.track_states[..., :3] + scene.origin_m)
    assert scene.lidar is not None
    assert len(found["points_m"]) > 0
    np.testing.assert_allclose(found["points_m"], scene.lidar.frame(0, 10)[0], atol=1e-6)


def test_every_field_is_in_the_table_with_its_type() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+)", DOCUMENT, flags=re.MULTILINE))
    expected = {name: np.dtype(dtype).name for name, (_, dtype, _) in FIELDS.items()} | dict.fromkeys(SCALARS, "int64")
    assert {name: rows.get(name) for name in expected} == expected
    assert all(f"`{column}`" in DOCUMENT for column in COLUMNS)
