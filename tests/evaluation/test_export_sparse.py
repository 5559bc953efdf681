"""Graphs of sparse models: the zeros stay where they are, and the graph says what the model says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.export import ExportConfig, run
from evaluation.export_check import TOLERANCE, difference
from evaluation.exported import ExportedPredictor
from evaluation.prediction_cost import count_links
from evaluation.probe_batch import ProbeSize, probe_batch
from evaluation.sparse_layout import make_sparse
from evaluation.zero_weights import zero_masks
from limtr.predictor import MotionPredictor
from tests.evaluation.test_export import model_of, one_layer_config


@pytest.fixture
def sparse_run(tmp_path: Path) -> Path:
    model = model_of(one_layer_config())
    make_sparse(model, 0.2, ("*",), seed=0)
    return model.save(tmp_path / "RUN")


@pytest.mark.slow
def test_a_torch_graph_of_a_sparse_model_has_its_zeros_and_its_answers(
    sparse_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ExportConfig(checkpoint=sparse_run, out=tmp_path / "EXPORTED", format="torch")) == 0
    model = MotionPredictor.load(sparse_run)
    state = torch.export.load(tmp_path / "EXPORTED" / "model.pt2").state_dict
    masks = zero_masks(model)
    assert len(masks) > 10
    for name, mask in masks.items():
        assert torch.equal(state[f"model.{name}"] != 0, mask), name
    about = json.loads((tmp_path / "EXPORTED" / "metadata.json").read_text())
    assert (about["parameters"], about["links"]) == count_links(model)
    assert f"sparse: {about['links']:,} of {about['parameters']:,} weights are links" in capsys.readouterr().out
    batch = probe_batch(model.config, ProbeSize(centers=2, agents=6, polylines=20, points=9), seed=3)
    found = difference(model, ExportedPredictor.load(tmp_path / "EXPORTED"), batch)
    assert max(found.queries, found.modes) < TOLERANCE


@pytest.mark.slow
def test_an_onnx_graph_of_a_sparse_model_has_its_zeros_and_its_answers(sparse_run: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    assert run(ExportConfig(checkpoint=sparse_run, out=tmp_path / "EXPORTED")) == 0
    model = MotionPredictor.load(sparse_run)
    graph = onnx.load(tmp_path / "EXPORTED" / "model.onnx").graph
    stored = [onnx.numpy_helper.to_array(item) for item in graph.initializer]
    for name, mask in zero_masks(model).items():
        weight = model.get_parameter(name).detach().numpy()
        # The converter stores some matrices transposed, and packed projections in parts.
        pieces = [weight, weight.T, *np.split(weight, (2 * weight.shape[1],))] if name.endswith("in_proj_weight") else [weight]
        pieces += [piece.T for piece in pieces]
        found = any(item.shape == piece.shape and np.array_equal(item, piece) for item in stored for piece in pieces)
        assert found, (name, mask.shape)
    batch = probe_batch(model.config, ProbeSize(centers=2, agents=6, polylines=20, points=9), seed=3)
    found = difference(model, ExportedPredictor.load(tmp_path / "EXPORTED"), batch)
    assert max(found.queries, found.modes) < TOLERANCE
