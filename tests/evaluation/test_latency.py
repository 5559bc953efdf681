"""The latency benchmark: what it runs, what it says it could not run, and how times become numbers."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from evaluation import timing
from evaluation.latency import LatencyConfig, run
from evaluation.latency_cost import EagerCost, eager_cost, graph_flops
from evaluation.sparse_layout import make_sparse
from evaluation.timing import Times, interleaved_times, peak_memory_bytes
from evaluation.zero_weights import zero_masks
from limtr.config import AttentionPath
from limtr.encoder import LocalAttention
from limtr.neighbors import nearest_tokens
from tests.training.small import small_model


def test_every_round_runs_everything_once_in_an_order_of_its_own() -> None:
    ran: list[str] = []
    calls = {name: lambda name=name: ran.append(name) for name in "abcd"}
    times = interleaved_times(calls, rounds=6, warm_up=2, seed=0)
    assert ran[:8] == list("aabbccdd")
    rounds = [tuple(ran[start : start + 4]) for start in range(8, len(ran), 4)]
    assert len(rounds) == times.rounds == 6
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len(set(rounds)) > 1


def test_a_time_is_that_of_the_call_and_of_waiting_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    def spend(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    monkeypatch.setattr(timing, "progress", lambda *_: nullcontext(lambda note: spend(1000.0)))
    pending = 7.0  # work that was handed to a device before

    def wait() -> None:
        nonlocal pending
        spend(pending)
        pending = 0.0

    counts = {"a": 0, "b": 0}

    def call(name: str, cold: float, warm: float) -> None:
        nonlocal pending
        counts[name] += 1
        spend(cold if counts[name] <= 2 else warm)
        pending += 0.5

    calls = {"a": lambda: call("a", 50.0, 1.0), "b": lambda: call("b", 60.0, 4.0)}
    times = interleaved_times(calls, rounds=3, warm_up=2, seed=0, wait=wait)
    assert times.seconds == {"a": [1.5] * 3, "b": [4.5] * 3}
    assert times.ratio("a", "b") == 3.0


def test_percentiles_by_hand() -> None:
    times = Times({"x": [float(value) for value in range(21, 0, -1)]})
    assert (times.percentile("x", 50), times.percentile("x", 95)) == (11.0, 20.0)


def test_an_interrupt_keeps_the_rounds_that_are_complete() -> None:
    counts = {"a": 0, "b": 0}

    def call(name: str) -> None:
        counts[name] += 1
        if name == "b" and counts["b"] == 4:
            raise KeyboardInterrupt

    times = interleaved_times({name: lambda name=name: call(name) for name in counts}, rounds=9, warm_up=1, seed=1)
    assert times.interrupted
    assert times.rounds == 2


def test_an_interrupt_before_the_first_round_is_complete_ends_it() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interleaved_times({"a": interrupt}, rounds=3, warm_up=0, seed=0)


def test_percentiles_and_ratios_are_of_complete_rounds() -> None:
    times = Times({"slow": [2.0, 4.0, 6.0, 8.0], "fast": [1.0, 1.0, 2.0]})
    assert times.rounds == 3
    assert times.percentile("slow", 50) == 4.0
    assert times.ratio("fast", "slow") == 3.0
    assert times.ratio("slow", "slow") == 1.0
    assert times.ratio_quartiles("fast", "slow") == (2.5, 3.5)


def test_peak_memory_sees_what_a_call_holds() -> None:
    found = peak_memory_bytes(lambda: torch.ones(16 << 20), torch.device("cpu"))
    if found is None:
        pytest.skip("this system does not tell its high-water mark")
    assert found > 60 << 20


def test_peak_memory_leaves_out_what_only_the_first_call_needs() -> None:
    calls = []

    def call() -> None:
        calls.append(torch.ones((64 << 20) if not calls else 1).sum())

    found = peak_memory_bytes(call, torch.device("cpu"))
    assert len(calls) == 2 or found is None
    assert (found or 0) < 16 << 20


@pytest.mark.parametrize(("path", "seen_tokens"), [("gathered", 3), ("dense", 7)])
def test_flops_of_local_attention_by_hand(path: AttentionPath, seen_tokens: int) -> None:
    batch, tokens, dim = 2, 7, 8
    layer = LocalAttention(dim, num_heads=2, dropout=0.0, path=path).eval()
    x = torch.randn(batch, tokens, dim)
    neighbors = nearest_tokens(torch.randn(batch, tokens, 3), torch.ones(batch, tokens, dtype=torch.bool), 3)
    found = eager_cost(layer, (x, x, neighbors), {})
    projections = 2 * batch * tokens * dim * (3 * dim + dim)
    attention = 2 * 2 * batch * tokens * seen_tokens * dim
    assert (found.parameters, found.dense) == (4 * dim * dim + 4 * dim, projections + attention)
    assert found.sparse == found.dense
    assert not layer._forward_hooks


def test_flops_of_sparse_weights_and_of_graphs_by_hand() -> None:
    model = nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 5)).eval()
    mask = torch.zeros(10, 20, dtype=torch.bool)
    mask[:, :5] = True
    found = eager_cost(model, {"input": torch.randn(3, 20)}, {"0.weight": mask})
    assert found == EagerCost(
        parameters=200 + 10 + 50 + 5, active=50 + 10 + 50 + 5, dense=2 * 3 * (200 + 50), sparse=2 * 3 * (50 + 50),
        by_weight={"0.weight": 2 * 3 * 200, "2.weight": 2 * 3 * 50},
    )  # fmt: skip
    assert graph_flops(model, {"input": torch.randn(3, 20)}) == found.dense


def test_the_benchmark_writes_every_number_and_names_what_it_left_out(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = LatencyConfig(
        checkpoint=model_folder, batch_size=2, agents=4, rounds=2, warm_up=1, density=0.5, exported=False, threads=1,
        device="cpu", out=tmp_path / "latency.json",
    )  # fmt: skip
    threads = torch.get_num_threads()
    assert run(config) == 0
    assert torch.get_num_threads() == threads
    content = json.loads((tmp_path / "latency.json").read_text())
    ran = {(row["batch"], row["precision"], row["way"], row["weights"]) for row in content["variants"]}
    kinds = {("fp32", "eager", "dense"), ("fp32", "eager", "sparse"), ("bf16", "eager", "dense")}
    assert ran == {(batch, *kind) for batch in (1, 2) for kind in kinds}
    left_out = {name for names in content["skipped"].values() for name in names}
    assert len(left_out) == 2 * 4 * 2 * 2 - len(ran)
    assert "--no-exported" in content["skipped"]
    for row in content["variants"]:
        assert len(row["seconds"]) == row["rounds"] == 2
        assert row["p50_s"] <= row["p95_s"]
        assert row["agents_per_s"] == pytest.approx(row["batch"] / row["p50_s"])
        if (row["precision"], row["weights"]) == ("fp32", "dense"):
            assert row["times_faster"] == 1.0
    flops = {(row["batch"], row["weights"]): row["flops"] for row in content["variants"]}
    assert flops[1, "sparse"] < flops[1, "dense"] < flops[2, "dense"]
    assert content["model"]["active_parameters"] < content["model"]["parameters"]
    printed = capsys.readouterr().out
    assert "not run (--no-exported)" in printed
    for batch in (1, 2):
        assert f"sparse weights, batch {batch}: each layer alone, all its calls" in printed
    layers = {row["batch"]: row["layers"] for row in content["variants"] if row["weights"] == "sparse"}
    assert not any(row["layers"] for row in content["variants"] if row["weights"] == "dense")
    assert layers[1]
    assert [layer["weight"] for layer in layers[1]] == [layer["weight"] for layer in layers[2]]
    for layer in layers[2]:
        if layer["weight"].endswith("in_proj_weight"):
            assert layer["reason"] == "it belongs to LocalAttention, not to a plain Linear"
        else:
            assert layer["sparse"] == (layer["dense_s"] >= 1.5 * layer["sparse_s"])
            assert layer["inputs"]


def test_a_sparse_checkpoint_is_timed_as_it_is_and_not_made_sparse_again(tmp_path: Path) -> None:
    model = small_model()
    make_sparse(model, 0.2, ("encoder.*",), seed=0)
    model.save(tmp_path / "model")
    config = LatencyConfig(
        checkpoint=tmp_path / "model", batch_size=1, agents=4, rounds=1, warm_up=1, exported=False, threads=1, device="cpu",
        out=tmp_path / "latency.json",
    )  # fmt: skip
    assert run(config) == 0
    content = json.loads((tmp_path / "latency.json").read_text())
    (sparse,) = (row for row in content["variants"] if row["weights"] == "sparse")
    masks = zero_masks(model)
    assert {layer["weight"]: layer["density"] for layer in sparse["layers"]} == {
        name: pytest.approx(float(mask.float().mean())) for name, mask in masks.items()
    }
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    assert content["model"]["parameters"] - content["model"]["active_parameters"] == zeros
    with pytest.raises(ValueError, match="is sparse already; leave it out"):
        run(replace(config, density=0.1))


@pytest.mark.slow
def test_exported_graphs_are_timed_beside_the_model(model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    config = LatencyConfig(
        checkpoint=model_folder, batch_size=2, agents=4, rounds=2, warm_up=1, threads=1, device="cpu",
        out=tmp_path / "latency.json",
    )  # fmt: skip
    assert run(config) == 0
    content = json.loads((tmp_path / "latency.json").read_text())
    assert {row["way"] for row in content["variants"]} == {"eager", "torch.export", "ONNX Runtime"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either --checkpoint or --preset"),
        ({"preset": "tiny", "checkpoint": Path("x")}, "either --checkpoint or --preset"),
        ({"preset": "tiny", "rounds": 0}, "--rounds must be at least 1"),
        ({"preset": "tiny", "density": 1.5}, "--density must be between"),
        ({"preset": "tiny", "include": ("encoder.*",)}, "--include says which weights --density makes sparse"),
    ],
    ids=["neither", "both", "no rounds", "density", "include alone"],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyConfig(**options)  # type: ignore[arg-type]
