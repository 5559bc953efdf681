"""`limtr export`: a checkpoint as one graph that runs elsewhere, checked against PyTorch before it is there."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.export_check import TOLERANCE, arrays_of, differences, probes
from evaluation.export_metadata import describe
from evaluation.exported import (
    ANSWER_FILE,
    EXAMPLE_FILE,
    GRAPH_FILES,
    METADATA_FILE,
    Arrays,
    GraphKind,
    digest,
    run_onnx,
    run_torch,
)
from evaluation.onnx_graph import OPSET, require_onnx, write_onnx
from evaluation.probe_batch import ProbeSize, probe_batch
from limtr.agent_batch import AgentBatch
from limtr.agent_view import build_agent_batch
from limtr.batch import collate
from limtr.export import OUTPUT_AXES, export_predictor
from limtr.files import atomic_path, write_json
from limtr.predictor import MotionPredictor
from limtr.progress import progress
from limtr.run_report import as_plain
from preprocessing.shards import SceneSource


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Options of `limtr export`."""

    checkpoint: Path
    """Training run or model folder."""
    out: Path
    """Folder for the graph, metadata.json and an example input with its output."""
    format: GraphKind = "onnx"
    """onnx for ONNX Runtime and others, torch for torch.export.load."""
    data: Path | None = None
    """Dataset of shards whose first scene becomes the example [default: random numbers]."""
    split: str = "validation"
    """Split of --data: train, validation or test."""


def run(config: ExportConfig) -> int:
    """Export, check, and only then put the files in place; 0 if the graph says what the model says."""
    if config.format == "onnx":
        require_onnx()
    if not _may_replace(config.out):
        raise ValueError(f"--out {config.out} is there and was not written by limtr export; name a folder that is new or empty")
    model = MotionPredictor.load(config.checkpoint)
    if model.intention_points.dtype != torch.float32:
        raise ValueError(f"{config.checkpoint}: the model is in {model.intention_points.dtype}, graphs are made in float32")
    example, source = _example(config, model)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{config.out.name}.", dir=config.out.parent) as work,
        progress("exporting", 4, "steps") as advance,
    ):
        graph = Path(work) / GRAPH_FILES[config.format]
        # Numbers of every axis that differ from each other and from all widths, so that none is taken for another.
        size = ProbeSize(centers=3, agents=5, polylines=13, points=17)
        program = export_predictor(model, probe_batch(model.config, size))
        advance(note="traced")
        if config.format == "onnx":
            write_onnx(program, graph)
            exported = run_onnx(graph, torch.get_num_threads())
        else:
            torch.export.save(program, graph)
            exported = run_torch(graph, list(OUTPUT_AXES))
        advance(note="written")
        found = differences(model, exported, probes(model.config) | {"the example": example})
        advance(note="checked")
        inputs = arrays_of(example)
        _write_arrays(Path(work) / EXAMPLE_FILE, inputs | _frame(example))
        _write_arrays(Path(work) / ANSWER_FILE, exported(inputs))
        about: dict[str, Any] = {"file": graph.name, "kind": config.format, "sha256": digest(graph), "example": source}
        about |= {"inputs": list(inputs), "outputs": list(OUTPUT_AXES)}
        about |= {"opset": OPSET} if config.format == "onnx" else {}
        metadata = describe(model, about, {"tolerance": TOLERANCE, "probes": as_plain(found)})
        _put(Path(work), config.out, metadata)
        advance(note="in place")
    print(f"{config.out / graph.name}: {(config.out / graph.name).stat().st_size / 2**20:.1f} MiB, {config.format}")
    parameters, links = metadata["parameters"], metadata["links"]
    if links < parameters:
        print(f"  sparse: {links:,} of {parameters:,} weights are links; the graph stores and computes the zeros too")
    for name, value in found.items():
        others = f"; {value.other_modes} agents with other modes, of equal scores but for rounding" if value.other_modes else ""
        others += f"; {value.unsteady} agents not compared, whose nearest polylines hang on rounding" if value.unsteady else ""
        print(f"  differs from PyTorch by at most {max(value.queries, value.modes):.1e} on: {name}{others}")
    print(f"inputs, outputs, units and the model's configuration: {config.out / METADATA_FILE}")
    return 0


def _may_replace(out: Path) -> bool:
    """Whether files may be put there: nothing is there yet, or what an earlier export wrote."""
    return not out.exists() or (out.is_dir() and ((out / METADATA_FILE).is_file() or not any(out.iterdir())))


def _example(config: ExportConfig, model: MotionPredictor) -> tuple[AgentBatch, str]:
    """The batch that goes with the graph, and where it is from."""
    view = model.config.view
    if config.data is None:
        points = min(view.num_lidar_points, 64)
        return probe_batch(model.config, ProbeSize(centers=2, agents=8, polylines=32, points=points), seed=1), "random numbers"
    source = SceneSource(config.data, config.split)
    if not len(source):
        raise ValueError(f"{config.data}: the split {config.split} has no scene; name another by --split")
    for scene in source:
        agents = build_agent_batch(collate([scene], num_lidar_points=view.lidar_points_to_load), view)
        if len(agents.center_type):
            return agents, f"scenario {scene.scenario_id} of {config.data}, {config.split}"
    raise ValueError(f"{config.data}: no scene of the split {config.split} has anything to predict; name another by --split")


def _frame(example: AgentBatch) -> Arrays:
    """Where the rows' frames stand in the scene, for whoever wants scene coordinates; not read by the graph."""
    frame = {"center_position": example.center_position, "center_heading": example.center_heading}
    return {name: value.numpy() for name, value in frame.items() if value is not None}


def _write_arrays(path: Path, arrays: Arrays) -> None:
    """An npz file of plain arrays."""
    np.savez(path, **arrays)  # type: ignore[arg-type]  # the stub takes all keywords for its one option


def _put(work: Path, out: Path, metadata: dict[str, Any]) -> None:
    """Move the files into `out`, metadata.json last: its sha256 tells a folder that was half replaced."""
    for file in sorted(work.iterdir()):
        with atomic_path(out / file.name) as temporary:
            shutil.move(file, temporary)
    for other in set(GRAPH_FILES.values()) - {metadata["graph"]["file"]}:
        (out / other).unlink(missing_ok=True)
    write_json(out / METADATA_FILE, metadata)
