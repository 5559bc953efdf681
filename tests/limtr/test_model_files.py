"""Saving, loading and starting from other models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from limtr.predictor import MotionPredictor
from limtr.reference import to_reference
from tests.builders import tiny_scene
from tests.limtr.model_builders import random_batch, small_config


def trained_looking(lidar: str | None = "linear") -> MotionPredictor:
    torch.manual_seed(1)
    model = MotionPredictor(small_config(lidar=lidar)).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.add_(torch.rand_like(value) * 0.1)
            if name.endswith("num_batches_tracked"):
                value.fill_(7)
    return model


def test_a_loaded_model_is_the_saved_one(tmp_path: Path) -> None:
    model = trained_looking()
    model.licence = "Waymo Dataset License Agreement for Non-Commercial Use"
    model.kept = {"motion_decoder.obj_decoder_layers.1.ca_qpos_proj.bias": torch.arange(16.0)}
    model.save(tmp_path / "model")
    loaded = MotionPredictor.load(tmp_path / "model")
    assert loaded.config == model.config
    assert loaded.licence == model.licence
    assert loaded.fingerprint() == model.fingerprint()
    torch.testing.assert_close(loaded.kept, model.kept)
    batch = random_batch(model.config, dtype=torch.float32)
    assert torch.equal(loaded(batch).trajectories, model(batch).trajectories)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training
    assert MotionPredictor.load(tmp_path / "model" / "model.safetensors").fingerprint() == model.fingerprint()


def test_the_fingerprint_follows_weights_and_configuration() -> None:
    model = trained_looking()
    before = model.fingerprint()
    assert before == trained_looking().fingerprint()
    model.config = replace(model.config, nms_distance_m=(1.0, 2.0, 3.0))
    assert model.fingerprint() != before
    model = trained_looking()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert model.fingerprint() != before


def test_a_run_folder_means_its_latest_checkpoint(tmp_path: Path) -> None:
    model = trained_looking()
    model.save(tmp_path / "run" / "checkpoints" / "step-00000002")
    (tmp_path / "run" / "checkpoints" / "latest.txt").write_text("step-00000002\n")
    assert MotionPredictor.load(tmp_path / "run").fingerprint() == model.fingerprint()
    (tmp_path / "run" / "checkpoints" / "latest.txt").write_text("step-00000009\n")
    with pytest.raises(FileNotFoundError, match="names step-00000009"):
        MotionPredictor.load(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="no model there"):
        MotionPredictor.load(tmp_path / "nothing")


def test_weights_of_another_architecture_are_refused_by_name(tmp_path: Path) -> None:
    folder = trained_looking().save(tmp_path)
    content = json.loads((folder / "config.json").read_text())
    content["model"]["encoder"]["dim"] = 16
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"another architecture.*encoder\.agent_encoder.*has shape .*look at encoder\.agents, encoder\.dim"
    ):
        MotionPredictor.load(folder)
    content["model"]["depth"] = 3
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"config\.json has unknown keys \['depth'\]"):
        MotionPredictor.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        MotionPredictor.load(folder)


def test_damaged_and_altered_files_are_told_about(tmp_path: Path) -> None:
    folder = trained_looking().save(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["intention_points"] += 1.0
    save_file(tensors, folder / "model.safetensors")
    with pytest.warns(UserWarning, match="changed after saving"):
        MotionPredictor.load(folder)
    (folder / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="not a safetensors file"):
        MotionPredictor.load(folder)


@pytest.mark.parametrize("suffix", ["pth", "ckpt", "safetensors", "folder"])
def test_limtr_starts_from_an_mtr_checkpoint(tmp_path: Path, suffix: str) -> None:
    source = trained_looking(lidar=None)
    state = to_reference(source.state_dict(), source.config)
    path = tmp_path / f"checkpoint.{suffix}"
    if suffix == "pth":
        torch.save({"epoch": 3, "it": 7, "model_state": state, "optimizer_state": None, "version": "none"}, path)
    elif suffix == "ckpt":
        torch.save({"state_dict": state}, path)
    elif suffix == "safetensors":
        save_file(state, path)
    else:
        path = source.save(tmp_path)
    torch.manual_seed(5)
    model = MotionPredictor(small_config(lidar="linear"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = model.initialise_from(path)
    assert "1 in part" in report
    after = model.state_dict()
    for name, value in source.state_dict().items():
        if name == "decoder.center_projection.0.weight":
            assert torch.equal(after[name][:, :8], value)
            assert not after[name][:, 8:].any()  # the LiDAR feature says nothing yet
        elif name != "intention_points" or suffix == "folder":
            assert torch.equal(after[name], value), name
    assert torch.equal(
        after["encoder.lidar_encoder.points.mlps.0.weight"], before["encoder.lidar_encoder.points.mlps.0.weight"]
    )
    assert "encoder.lidar_encoder" in report


def test_nothing_to_start_from_is_an_error(tmp_path: Path) -> None:
    model = MotionPredictor(small_config())
    with pytest.raises(ValueError, match="no tensor of the state fits"):
        model.initialise_from({"decoder.unknown": torch.zeros(3)})
    with pytest.raises(FileNotFoundError):
        model.initialise_from(tmp_path / "absent.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="expected a state dict"):
        model.initialise_from(tmp_path / "empty.pth")
    (tmp_path / "broken.pth").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="cannot read it as plain weights"):
        model.initialise_from(tmp_path / "broken.pth")


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must not run",))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model_state": {"weight": RunsCode()}}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="plain weights"):
        MotionPredictor(small_config()).initialise_from(tmp_path / "evil.pth")
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("lidar", ["linear", None])
def test_scenes_are_predicted_in_world_coordinates(lidar: str | None) -> None:
    model = trained_looking(lidar)
    scenes = [tiny_scene(0), tiny_scene(1, num_steps=11, with_lidar=False)]
    alone = model.predict(scenes[0])
    assert alone.scenario_id == scenes[0].scenario_id
    assert alone.xy_m.shape == (3, 6, 80, 2)
    assert alone.object_id.tolist() == scenes[0].track_id[scenes[0].tracks_to_predict].tolist()
    # The scenes lie kilometres away from the world's zero, the predictions with them.
    start = scenes[0].origin_m[:2] + scenes[0].track_states[scenes[0].tracks_to_predict, 10, :2]
    assert np.linalg.norm(alone.xy_m - start[:, None, None], axis=-1).max() < 1000.0
    assert np.all(np.diff(alone.scores, axis=1) <= 0)
    both = model.predict([scenes[0], tiny_scene(3)])
    np.testing.assert_allclose(both[0].xy_m, alone.xy_m, atol=1e-2)
    (short,) = model.predict([scenes[1]])
    assert short.xy_m.shape == (3, 6, 80, 2)
    assert model.predict([]) == []
