"""Exported graphs: they say what the model says, for any number of things, and the folder is enough to predict."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evaluation import export_check, onnx_graph
from evaluation.export import ExportConfig, run
from evaluation.export_check import TOLERANCE, difference, probes
from evaluation.exported import ExportedPredictor
from evaluation.probe_batch import ProbeSize, probe_batch
from limtr.config import ModelConfig, tiny
from limtr.export import OUTPUT_AXES, callable_of, export_predictor, tensor_inputs
from limtr.predictor import MotionPredictor
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset
from tests.limtr.model_builders import small_config

ROOT = Path(__file__).parents[2]


def one_layer_config() -> ModelConfig:
    """Converting takes seconds per layer: one of each kind, and the longest way from queries to modes."""
    config = small_config()
    return replace(
        config, encoder=replace(config.encoder, num_layers=1), decoder=replace(config.decoder, num_layers=1), num_modes=2,
        mode_averaging=1, mode_scores="risk",
    )  # fmt: skip


def model_of(config: ModelConfig) -> MotionPredictor:
    torch.manual_seed(0)
    return MotionPredictor(config).eval()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint RUN, a dataset SHARDS, and what was exported of them, EXPORTED."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("export")
    model = model_of(one_layer_config())
    model.licence = "test terms"
    model.save(folder / "RUN")
    write_dataset(folder / "SHARDS", {"validation": [tiny_scene(0)]})
    assert run(ExportConfig(checkpoint=folder / "RUN", out=folder / "EXPORTED", data=folder / "SHARDS")) == 0
    return folder


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/deployment.md").read_text(), flags=re.DOTALL)


def test_the_documents_example_predicts_from_the_file_alone(workplace: Path) -> None:
    code = python_blocks()[0] + (
        "\nimport sys\n"
        "expected = np.load('EXPORTED/example_outputs.npz')\n"
        "assert np.allclose(trajectories, expected['trajectories'], atol=1e-5)\n"
        "assert np.allclose(scores, expected['scores'], atol=1e-6)\n"
        "assert not {'torch', 'limtr', 'evaluation'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(3, 80, 2)" in done.stdout


def test_the_documents_way_from_a_scene_gives_the_models_answer(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    found: dict[str, object] = {}
    exec(python_blocks()[1], found)
    model = MotionPredictor.load(workplace / "RUN")
    with torch.no_grad():
        expected = model(found["agents"])
    outputs = found["outputs"]
    assert isinstance(outputs, dict)
    np.testing.assert_allclose(outputs["trajectories"], expected.trajectories.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(outputs["scores"], expected.scores.numpy(), atol=TOLERANCE)


@pytest.mark.parametrize(
    "size",
    [
        ProbeSize(centers=1, agents=1, polylines=1, points=1),
        ProbeSize(centers=2, agents=3, polylines=0, points=0),
        ProbeSize(centers=6, agents=17, polylines=90, points=30),
        ProbeSize(centers=1, agents=9, polylines=2, points=5),
    ],
    ids=str,
)
def test_onnx_runtime_equals_pytorch_for_sizes_it_was_not_traced_with(workplace: Path, size: ProbeSize) -> None:
    model = MotionPredictor.load(workplace / "RUN")
    found = difference(model, ExportedPredictor.load(workplace / "EXPORTED"), probe_batch(model.config, size, seed=7))
    assert max(found.queries, found.modes) < TOLERANCE


def test_what_stands_in_masked_slots_does_not_act(workplace: Path) -> None:
    predictor = ExportedPredictor.load(workplace / "EXPORTED")
    batch = probe_batch(one_layer_config(), ProbeSize(centers=2, agents=4, polylines=9, points=6), share_valid=0.6)
    clean = {name: value.numpy() for name, value in tensor_inputs(batch).items()}
    spoilt = {
        values: np.where(clean[mask][..., None], clean[values], np.float32(np.nan))
        for values, mask in (
            ("agent_history", "agent_history_mask"), ("polylines", "polyline_mask"), ("lidar_points", "lidar_mask")
        )
    }  # fmt: skip
    assert all(np.isnan(value).any() for value in spoilt.values())
    for name, value in predictor(clean | spoilt).items():
        np.testing.assert_array_equal(value, predictor(clean)[name])


def test_an_axis_of_the_graph_has_the_name_that_the_metadata_give_it(workplace: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(workplace / "EXPORTED/model.onnx")
    about = json.loads((workplace / "EXPORTED/metadata.json").read_text())
    assert {item.name: item.shape for item in session.get_inputs()} == {
        name: value["shape"] for name, value in about["inputs"].items()
    }
    assert {item.name: item.shape for item in session.get_outputs()} == {
        name: value["shape"] for name, value in about["outputs"].items()
    }
    assert [item.name for item in session.get_inputs()] == about["graph"]["inputs"]
    for value in [*about["inputs"].values(), *about["outputs"].values()]:
        assert "channels" not in value or len(value["channels"]) == value["shape"][-1]
    assert (about["licence"], about["fingerprint"]) == ("test terms", MotionPredictor.load(workplace / "RUN").fingerprint())


def test_inputs_that_do_not_fit_are_named(workplace: Path) -> None:
    predictor = ExportedPredictor.load(workplace / "EXPORTED")
    good = dict(np.load(workplace / "EXPORTED/example_inputs.npz"))
    good = {name: good[name] for name in predictor.metadata["inputs"]}
    wrong = {
        "inputs are": {name: value for name, value in good.items() if name != "polylines"},
        "agent_history must be float32": good | {"agent_history": good["agent_history"].astype(np.float64)},
        "center_type must have shape": good | {"center_type": good["center_type"][:-1]},
    }
    for message, inputs in wrong.items():
        with pytest.raises(ValueError, match=message):
            predictor(inputs)


def test_a_graph_of_another_export_is_refused(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_bytes((workplace / "EXPORTED/metadata.json").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"model\.onnx is missing"):
        ExportedPredictor.load(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"another")
    with pytest.raises(ValueError, match="another sha256"):
        ExportedPredictor.load(tmp_path)


def test_without_the_packages_the_error_names_the_remedy(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"package onnxscript .*\.\[onnx\]"):
        run(ExportConfig(checkpoint=workplace / "RUN", out=tmp_path / "out"))


def test_files_that_are_not_ours_are_left_alone(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(ValueError, match="was not written by limtr export"):
        run(ExportConfig(checkpoint=workplace / "RUN", out=tmp_path))
    assert (tmp_path / "model.onnx").read_text() == "mine"


def test_an_export_that_differs_fails_and_writes_nothing(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = model_of(one_layer_config())
    with torch.no_grad():
        wrong.decoder.regression_heads[0][-1].bias.add_(0.001)
    written = (workplace / "EXPORTED/model.onnx").read_bytes()
    # The graph on disk is that of RUN; the model it is compared with predicts a millimetre beside it.
    wrong.save(tmp_path / "wrong")
    monkeypatch.setattr("evaluation.export.export_predictor", lambda model, example: None)
    monkeypatch.setattr("evaluation.export.write_onnx", lambda program, path: path.write_bytes(written))
    with pytest.raises(ValueError, match=r"differs from PyTorch by 0\.001 in its queries"):
        run(ExportConfig(checkpoint=tmp_path / "wrong", out=tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong"]


@pytest.mark.parametrize("name", ["trajectories", "scores", "query_trajectories", "query_scores"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda value: np.full_like(value, np.nan), "differs from PyTorch by nan"),
        (lambda value: value + np.float32(2e-4), r"differs from PyTorch by 0\.0002"),
        (lambda value: value[:1], "differs from PyTorch by inf"),
    ],
    ids=["nan", "a little off", "one row for all"],
)
def test_a_spoilt_answer_of_a_graph_is_no_agreement(
    name: str, spoil: Callable[[np.ndarray], np.ndarray], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(one_layer_config())
    batches = {"one": probes(model.config)["fewer polylines than are collected"]}
    with torch.no_grad():
        outputs = model.decode(batches["one"])
        modes = model.select(outputs, batches["one"].center_type)
    values = {
        "trajectories": modes.trajectories, "scores": modes.scores, "query_trajectories": outputs.layers[-1].trajectories,
        "query_scores": outputs.layers[-1].scores.softmax(-1),
    }  # fmt: skip
    arrays = {name: value.numpy() for name, value in values.items()}
    # What is made of a graph's queries has tests of its own; here each output is spoilt alone.
    monkeypatch.setattr(model, "modes_of", lambda *_: modes)
    assert export_check.differences(model, lambda _: arrays, batches)["one"].queries == 0.0
    with pytest.raises(ValueError, match=message):
        export_check.differences(model, lambda _: arrays | {name: spoil(arrays[name])}, batches)


def test_agents_with_polylines_at_equal_distance_are_counted_and_hide_no_one_elses_difference() -> None:
    model = model_of(one_layer_config())
    for head in model.decoder.regression_heads:
        torch.nn.init.normal_(head[-1].weight, std=3.0)
    batch = probe_batch(model.config, ProbeSize(centers=3, agents=4, polylines=40, points=4), seed=2)
    center = batch.polyline_center.clone()
    center[1] = torch.tensor([20.0, 5.0, 0.0])  # the content differs, the distance does not
    batch = replace(batch, polyline_center=center)
    with torch.no_grad():
        last = model.decode(batch).layers[-1]

    def graph(shift_m: list[float]) -> Callable[[object], dict[str, np.ndarray]]:
        queries, probabilities = last.trajectories + torch.tensor(shift_m)[:, None, None, None], last.scores.softmax(-1)
        modes = model.modes_of(queries, probabilities, model.nms_distance(batch.center_type))
        values = (modes.trajectories, modes.scores, queries, probabilities)
        arrays = {name: value.detach().numpy() for name, value in zip(OUTPUT_AXES, values, strict=True)}
        return lambda _: arrays

    found = export_check.differences(model, graph([0.0, 0.05, 0.0]), {"ties": batch})["ties"]
    assert (found.unsteady, found.queries, found.other_modes) == (1, 0.0, 0)
    for shift_m in ([0.0, 0.0, 0.05], [0.05, 0.05, 0.0]):
        with pytest.raises(ValueError, match=r"differs from PyTorch by 0\.05 in its queries"):
            export_check.differences(model, graph(shift_m), {"ties": batch})
    with pytest.raises(ValueError, match="differs from PyTorch by nan"):
        export_check.differences(model, graph([0.0, float("nan"), 0.0]), {"ties": batch})


def test_the_example_of_a_graph_must_not_have_short_axes_or_lack_lidar() -> None:
    model = model_of(one_layer_config())
    with pytest.raises(ValueError, match="at least 2 long, agent_history is"):
        export_predictor(model, probe_batch(model.config, ProbeSize(centers=1, agents=3, polylines=3, points=3)))
    batch = probe_batch(model.config, ProbeSize(centers=2, agents=3, polylines=3, points=3))
    with pytest.raises(ValueError, match="the example must have"):
        export_predictor(model, replace(batch, lidar_points=None, lidar_mask=None))


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["dense", "gathered"])
def test_a_torch_program_equals_the_model_for_sizes_it_was_not_traced_with(attention: str) -> None:
    model = model_of(replace(one_layer_config(), attention=attention))
    size = ProbeSize(centers=3, agents=5, polylines=13, points=17)
    module = callable_of(export_predictor(model, probe_batch(model.config, size)))

    def call(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = ("trajectories", "scores", "query_trajectories", "query_scores")
        values = module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        return {name: value.detach().numpy() for name, value in zip(names, values, strict=True)}

    for name, found in export_check.differences(model, call, probes(model.config)).items():
        assert found.other_modes == 0, name


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_the_tiny_preset_exports(format: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model_of(tiny()).save(tmp_path / "RUN")
    assert run(ExportConfig(checkpoint=tmp_path / "RUN", out=tmp_path / "OUT", format=format)) == 0  # type: ignore[arg-type]
    batch = probe_batch(tiny(), ProbeSize(centers=2, agents=40, polylines=64, points=64), seed=3)
    found = difference(MotionPredictor.load(tmp_path / "RUN"), ExportedPredictor.load(tmp_path / "OUT"), batch)
    assert max(found.queries, found.modes) < TOLERANCE


def test_weights_beyond_what_one_onnx_file_holds_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")

    # Of a program, only its weights are looked at before this is known.
    program = SimpleNamespace(state_dict={"weight": torch.empty(2**29, device="meta")})
    with pytest.raises(ValueError, match=r"2\.0 GiB; one ONNX file holds 2"):
        onnx_graph.write_onnx(program, tmp_path / "model.onnx")  # type: ignore[arg-type]


def test_inputs_of_a_graph_are_what_the_batch_has_of_them() -> None:
    config = one_layer_config().without_lidar()
    batch = probe_batch(config, ProbeSize(centers=2, agents=3, polylines=4, points=5))
    assert not any("lidar" in name for name in tensor_inputs(batch))
