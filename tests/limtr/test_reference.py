"""The reference's checkpoints and configurations, and the golden files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limtr.cli import main
from limtr.config import limtr, mtr
from limtr.predictor import MotionPredictor
from limtr.reference import from_reference, our_names, reference_config, to_reference
from limtr.verify_model import VerifyModelConfig, build_model, compare, read_golden, run
from tests.limtr.model_builders import small_config

GOLDEN = Path(__file__).parents[1] / "golden" / "reference"
FILES = ["mtr_a", "limtr_a", "limtr_double_pointnet"]


def golden_meta(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    golden = read_golden(GOLDEN / f"{name}.npz")
    return golden, json.loads(str(golden["meta_json"]))


@pytest.mark.parametrize("name", FILES)
def test_every_quantity_of_the_golden_files_agrees(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "model", str(GOLDEN / f"{name}.npz")]) == 0
    printed = capsys.readouterr().out
    for part in ("eval/pred_trajs", "train/layer2/scores", "loss_layer1_reg_gmm", "grad_norm/motion_decoder", "nms/out_trajs"):
        assert part in printed
    assert "FAIL" not in printed


def test_what_differs_in_a_golden_file_is_found_and_nothing_else() -> None:
    golden, meta = golden_meta("mtr_a")
    gradient = "grad_norm/motion_decoder.in_proj_map.0.bias"
    changed = ["eval/pred_scores", "train/loss", "train/pred_dense_trajs", "nms/out_trajs", gradient]
    for name in changed:
        golden[name] = golden[name] * (1 + 1e-4)
    meta["loss_terms"]["loss_layer1_cls"] *= 1 + 1e-4
    golden["meta_json"] = np.array(json.dumps(meta))
    found = {item.name for item in compare(golden) if not item.agrees}
    assert found == {*changed, "loss_layer1_cls"}


def test_weights_that_were_changed_fail_the_command(tmp_path: Path) -> None:
    golden, _ = golden_meta("mtr_a")
    golden["state/motion_decoder.in_proj_map.0.bias"] = golden["state/motion_decoder.in_proj_map.0.bias"] + 1e-3
    np.savez(tmp_path / "changed.npz", **golden)
    assert run(VerifyModelConfig(golden=tmp_path / "changed.npz")) == 1


def test_unreadable_golden_files_are_told_about(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    golden, _ = golden_meta("mtr_a")
    del golden["input/obj_trajs"]
    for name, message in (("text", "not a readable"), ("other", "has no meta_json")):
        with pytest.raises(ValueError, match=message):
            read_golden(tmp_path / f"{name}.npz")
    with pytest.raises(ValueError, match="input/obj_trajs"):
        compare(golden)
    with pytest.raises(FileNotFoundError):
        read_golden(tmp_path / "absent.npz")


@pytest.mark.parametrize(("name", "preset", "entries"), [("mtr", mtr, 842), ("limtr", limtr, 1067)])
def test_full_size_models_have_the_reference_names_and_shapes(name: str, preset, entries: int) -> None:
    lines = (GOLDEN / f"{name}_state_dict.tsv").read_text().splitlines()[1:]
    expected = {}
    for line in lines:
        key, shape, dtype, _, _ = line.split("\t")
        expected[key] = (tuple(json.loads(shape)), f"torch.{dtype}")
    with torch.device("meta"):
        state = to_reference(MotionPredictor(preset()).state_dict(), preset())
    assert len(expected) == entries
    assert {key: (tuple(value.shape), str(value.dtype)) for key, value in state.items()} == expected


@pytest.mark.parametrize("name", FILES)
def test_a_reference_checkpoint_comes_back_as_it_was(name: str) -> None:
    golden, meta = golden_meta(name)
    state = {key.removeprefix("state/"): torch.from_numpy(value) for key, value in golden.items() if key.startswith("state/")}
    model = build_model(golden, meta)
    back = to_reference(model.state_dict(), model.config, model.kept)
    assert back.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(back[key], value), key
    without = to_reference(model.state_dict(), model.config)
    lost = [key for key in state if not torch.equal(without[key], state[key])]
    assert lost
    assert all("ca_qpos_proj" in key for key in lost)
    assert not any(without[key].any() for key in lost)


def test_standard_limtr_keeps_its_intention_buffers_though_it_reads_no_lidar() -> None:
    model = MotionPredictor(small_config(lidar=None))
    state = to_reference(model.state_dict(), model.config)
    for index, kind in enumerate(("VEHICLE", "PEDESTRIAN", "CYCLIST")):
        state[f"motion_decoder.intention_points_TYPE_{kind}"] = torch.full((8, 2), float(index))
    ours, kept = our_names({f"module.{name}": value for name, value in state.items()})
    assert torch.equal(ours["intention_points"][:, 0, 0], torch.arange(3.0))
    assert to_reference(ours, model.config, kept).keys() == state.keys()


def test_a_state_of_another_size_is_refused_by_name() -> None:
    golden, meta = golden_meta("mtr_a")
    state = {key.removeprefix("state/"): torch.from_numpy(value) for key, value in golden.items() if key.startswith("state/")}
    with pytest.raises(ValueError, match=r"encoder\.agent_encoder.*has shape \(16, 30\) instead of \(256, 30\)"):
        from_reference(state, mtr())
    with pytest.raises(ValueError, match=r"backbone\.weight: no such tensor in MTR or LiMTR"):
        our_names({"backbone.weight": torch.zeros(1)})
    config = reference_config({**meta, "num_queries": 20})
    del state["motion_decoder.in_proj_map.0.bias"]
    with pytest.raises(ValueError, match=r"decoder\.map_projection\.0\.bias is missing"):
        from_reference(state, config)


def test_quirks_and_misspelt_keys_of_the_reference_configuration() -> None:
    _, meta = golden_meta("limtr_a")
    config = reference_config(meta)
    assert config.loss.regression_weight == 1.0
    assert config.loss.classification_weight == 50.0
    assert config.loss.classification_reduction == "mean"
    assert config.view.reference_pedestrian_channel
    assert config.view.lidar_features == ("intensity",)
    assert reference_config(golden_meta("mtr_a")[1]).loss.classification_reduction == "sum"
    meta["motion_decoder"]["LOSS_WEIGHTS"] = {"cls": 50.0, "red": 3.0, "vel": 0.5}
    assert reference_config(meta).loss.regression_weight == 1.0
    meta["motion_decoder"]["NMS_DIST_THRESH"] = {"TYPE_VEHICLE": 2.5, "TYPE_PEDESTRIAN": 1.0, "TYPE_CYCLIST": 2.0}
    assert reference_config(meta).nms_distance_m == (2.5, 1.0, 2.0)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("context_encoder", "USE_LOCAL_ATTN", False, "global attention does not run"),
        ("context_encoder", "lidar_enc_class", True, "lidar_enc_class"),
        ("context_encoder", "lidar_encoder", "transformer", "is 'transformer'"),
        ("context_encoder", "lidar_in_k", 9, "lidar_in_k is 9"),
        ("context_encoder", "double_poly", {"without_bnorm": True}, "without_bnorm"),
        ("motion_decoder", "ONLY_CENTER_OBJ", True, "ONLY_CENTER_OBJ"),
        ("motion_decoder", "USE_PLACE_HOLDER", True, "USE_PLACE_HOLDER"),
        ("motion_decoder", "confidence_knn_smoothing", 3, "both set"),
        ("motion_decoder", "D_MODEL", None, "lacks 'D_MODEL'"),
    ],
)
def test_what_the_reference_configuration_must_not_ask(section: str, key: str, value: object, message: str) -> None:
    _, meta = golden_meta("limtr_a")
    meta["motion_decoder"]["confidence_label_smoothing"] = 0.1
    if value is None:
        del meta[section][key]
    else:
        meta[section][key] = value
    with pytest.raises(ValueError, match=message):
        reference_config(meta)


def test_keys_without_a_counterpart_are_warned_about() -> None:
    _, meta = golden_meta("limtr_a")
    meta["motion_decoder"]["use_pytorch_loss"] = True
    with pytest.warns(UserWarning, match="use_pytorch_loss"):
        reference_config(meta)
