"""An update never waits for the device layer by layer, and what is compiled or exported does not notice the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import sparse_core
from sparse_core import Method, SparseEngine, Structure, layout
from sparse_core.layer import SparseLayer
from sparse_core.method import gradient_step, uniform_within
from sparse_core.schedules import Linear
from sparse_core.structure import output_groups
from sparse_core.targets import select
from tests.sparse_core.small_trainings import PRESETS, batches, copied, mlp, preset, same, training

aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.equal, aten.nonzero, aten.nonzero_numpy, aten.argwhere}
READS |= {aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.repeat_interleave}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


_tolist = Tensor.tolist


class NoReads(TorchDispatchMode):
    """Refuses every operation whose result the host would have to wait for, wherever it is called from."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        assert packet not in READS, f"{packet} waits for the device"
        if packet in INDEXING:
            assert all(index is None or index.dtype not in (torch.bool, torch.uint8) for index in args[1]), "boolean indexing"
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_tolist(
    monkeypatch: pytest.MonkeyPatch, device: str = "cpu", answer: Callable[[Tensor], Any] = Tensor.tolist
) -> Iterator[list[int]]:
    """Counts the calls of `Tensor.tolist` on a device, which no dispatch mode sees, by the number of entries read."""
    read: list[int] = []

    def tolist(tensor: Tensor) -> Any:
        if tensor.device.type == device:
            read.append(tensor.numel())
        return answer(tensor)

    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "tolist", tolist)
        yield read


def lower_triangle(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.ones(shape).tril(shape[1] // 2).bool()


STRUCTURES: dict[str, Structure] = {
    "weight": Structure(),
    "row": Structure(group="row"),
    "2:4": Structure(group=4),
    "block": Structure(unit=(2, 2)),
    "channel": Structure(unit="channel"),
    "diagonal": Structure(unit="diagonal"),
    "output groups": Structure(group=output_groups(2)),
    "region": Structure(allowed=lower_triangle),
    "region in rows": Structure(group="row", allowed=lower_triangle),
}
BETWEEN_LAYERS = {"SNFS", "GMP", "GraNet", "DSR"}
ROWS = ("row", "region in rows")
CASES = [
    (name, structure)
    for name in PRESETS
    for structure in STRUCTURES
    if structure in {"SRigL": ROWS, **dict.fromkeys(BETWEEN_LAYERS, ("weight", "region"))}.get(name, STRUCTURES)
]


def updates_without_reads(method: Method, optimizer: str, widths: tuple[int, ...], **options: object) -> SparseEngine:
    run = training(mlp(*widths), method, optimizer, **options)
    for batch in batches(4, 8, widths[0], widths[-1]):
        run.optimizer.zero_grad()
        nn.functional.mse_loss(run.model(batch[0]), batch[1]).backward()
        with NoReads():
            run.optimizer.step()
    return run.engine


def test_the_mode_sees_what_it_forbids() -> None:
    x = torch.arange(4.0)
    for read in (
        lambda: x.sum().item(),
        lambda: bool(x[0] > 0),
        lambda: x[x > 1],
        lambda: x.masked_select(x > 1),
        lambda: torch.where(x > 1),
        lambda: x[torch.tensor(1)],
        lambda: x.__setitem__(x > 1, torch.zeros(2)),
    ):
        with pytest.raises(AssertionError), NoReads():
            read()


@pytest.mark.parametrize(("name", "structure"), CASES, ids=[f"{name}-{structure}" for name, structure in CASES])
def test_an_update_reads_no_scalar_and_indexes_by_no_mask(name: str, structure: str) -> None:
    method = preset(name, density=0.5, every=2, structure=STRUCTURES[structure])
    engine = updates_without_reads(method, "SGD", (8, 12, 8))
    assert engine.updates == (0 if name == "Static" else 2)


@pytest.mark.parametrize(
    ("name", "structure"),
    [case for case in CASES if case[0] != "Static" and case[1] in ("weight", "row", "2:4", "block", "region")],
    ids=str,
)
def test_large_layers_and_fused_optimizers_do_not_either(name: str, structure: str) -> None:
    method = preset(name, density=0.25, every=2, structure=STRUCTURES[structure])  # rows of more than 8192 are not sorted
    assert updates_without_reads(method, "AdamW", (96, 128, 96), fused=True).updates == 2


@pytest.mark.parametrize("grown_value", [0.5, uniform_within(0.1), gradient_step()], ids=["number", "random", "gradient"])
def test_values_of_new_links_need_no_reads(grown_value: Any) -> None:
    method = preset("RigL", density=0.25, grown_value=grown_value)
    assert updates_without_reads(method, "SGD", (96, 128, 8)).updates == 2


def test_kernels_and_convolutions_do_not_either() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    run = training(model, preset("RigL", density=0.5, structure=Structure(unit="kernel")))
    for _ in range(4):
        run.optimizer.zero_grad()
        model(torch.randn(2, 4, 8, 8)).square().mean().backward()
        with NoReads():
            run.optimizer.step()
    assert run.engine.updates == 2


# What a GPU would wait for, seen on tensors without data ("meta"): everything but the CPU's own shortcuts runs on them.


class NoWaits(NoReads):
    """Refuses copies from the host that wait too; those from pinned memory need not."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet is aten._pin_memory:
            return args[0]
        if packet in (aten._to_copy, aten.copy_):
            here = args[0] if packet is aten._to_copy else args[1]
            there = torch.device(kwargs.get("device") or args[0].device)
            free = kwargs.get("non_blocking") or (packet is aten.copy_ and len(args) > 2 and args[2])
            assert here.device.type == there.type or free, f"a copy from {here.device} to {there} that waits"
        return super().__torch_dispatch__(func, types, args, kwargs)


def refuse_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.tensor(numbers, device=...)` waits as well, below what a dispatch mode sees."""
    for name, plain in (("tensor", torch.tensor), ("as_tensor", torch.as_tensor)):

        def made(data: Any, *args: Any, plain: Any = plain, device: Any = None, **kwargs: Any) -> Tensor:
            there = torch.device("cpu" if device is None else device)
            assert isinstance(data, Tensor) or there.type == "cpu", f"numbers sent to {there}: a copy that waits"
            return plain(data, *args, device=device, **kwargs)

        monkeypatch.setattr(torch, name, made)


def on_a_gpu(method: Method, depth: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What one update of an engine reads back whose layers are on no CPU."""
    grid = method.structure.fit("", (16, 16))
    grid.room()
    if grid.allowed is not None:
        object.__setattr__(grid, "allowed", grid.allowed.to("meta"))
    model = nn.Sequential(*[nn.Linear(16, 16, device="meta") for _ in range(depth)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    layers = []
    for target in select(model, optimizer, None, None):
        mask, explored = torch.zeros(2, 16, 16, dtype=torch.bool, device="meta").unbind()
        layers.append(SparseLayer(target, grid, mask, explored, [grid.units // 2] * grid.groups))
    engine = SparseEngine(model, optimizer, method, layers, seed=0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
        optimizer.state[parameter] = {"exp_avg_sq": torch.ones_like(parameter), "step": torch.ones((), device="meta")}
    optimizer.param_groups[0]["betas"] = (0.9, 0.999)

    def imagined(tensor: Tensor) -> Any:
        """What an update reads, for tensors without data: no bad score, one link grown, one link in every group.

        Where weights off the mask live on, the number of links is known beforehand.
        """
        counts = [] if method.off_mask is not None else [1] * grid.groups
        return [0, 1, *counts] * depth if tensor.device.type == "meta" else _tolist(tensor)

    with monkeypatch.context() as patch, counted_tolist(monkeypatch, "meta", imagined) as read:
        refuse_sending(patch)
        with NoWaits():
            engine._before_step()
            engine._after(optimizer, (), {})
    assert engine.updates == 1
    return read


GPU_CASES = {
    "RigL": preset("RigL", every=1),
    "SET": preset("SET", every=1, layout=layout.uniform()),
    "SNFS": preset("SNFS", every=1),
    "MEST-soft": preset("MEST-soft", every=1),
    "GMP": replace(preset("GMP", every=1), density=Linear(0.5, 0.1)),
    "GraNet": preset("GraNet", every=1),
    "Top-KAST": preset("Top-KAST", every=1),
    "SR-STE in a region": preset("SR-STE", every=1, structure=Structure(allowed=lower_triangle)),
    "global exchange": preset("RigL", every=1, scope="global"),
    "gradient steps": preset("RigL", every=1, grown_value=gradient_step()),
    "2:4": preset("RigL", every=1, structure=Structure(group=4)),
    "rows": preset("RigL", every=1, structure=Structure(group="row")),
    "region": preset("RigL", every=1, structure=Structure(allowed=lower_triangle)),
    "DSR": preset("DSR", every=1),
    "rows that may go": preset("SRigL", every=1),
    "region in rows that may go, falling": preset(
        "SRigL", every=1, density=Linear(0.9, 0.2), structure=Structure(group="row", allowed=lower_triangle)
    ),
    "region in rows, falling": preset(
        "RigL", every=1, density=Linear(0.9, 0.2), structure=Structure(group="row", allowed=lower_triangle)
    ),
}


@pytest.mark.parametrize("method", GPU_CASES.values(), ids=GPU_CASES.keys())
def test_on_a_gpu_an_update_waits_once_however_many_layers(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    shallow, deep = on_a_gpu(method, 2, monkeypatch), on_a_gpu(method, 7, monkeypatch)
    assert len(shallow) == len(deep) == 1


def test_the_stand_in_for_a_gpu_sees_a_copy_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = torch.ones(2), torch.ones(2, device="meta")
    for wait in (lambda: here.to("meta"), lambda: there.copy_(here), lambda: there[there > 0]):
        with pytest.raises(AssertionError), NoWaits():
            wait()
    refuse_sending(monkeypatch)
    with pytest.raises(AssertionError, match="waits"):
        torch.tensor([1, 2], device="meta")


@pytest.mark.parametrize("name", ["RigL", "SET", "MEST", "GraNet", "SNFS"])
def test_the_number_of_reads_does_not_grow_with_the_layers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for depth in (2, 6):
        run = training(mlp(*[8] * (depth + 1)), preset(name, every=1))
        run.step(batches(1, 4, 8, 8)[0])
        nn.functional.mse_loss(run.model(torch.ones(2, 8)), torch.ones(2, 8)).backward()
        with counted_tolist(monkeypatch) as read:
            run.optimizer.step()
        calls.append(len([entries for entries in read if entries > 1]))
    assert calls[0] == calls[1] <= 2  # one is the layout's, on the host: how many links each layer shall have


# torch.compile, torch.export, state_dict.


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_is_compiled_once(backend: str) -> None:
    torch._dynamo.reset()
    model = mlp(6, 10, 4)
    frames: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        frames.append(len(inputs))
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    compiled = torch.compile(model, backend=counting)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    engine = sparse_core.sparsify(compiled, optimizer, preset("RigL", every=2))
    plain = training(mlp(6, 10, 4), preset("RigL", every=2))
    masks = [copied(engine.masks)]
    for batch in batches(8, 8, 6, 4):
        optimizer.zero_grad()
        nn.functional.mse_loss(compiled(batch[0]), batch[1]).backward()
        optimizer.step()
        masks.append(copied(engine.masks))
        plain.step(batch)
    assert engine.updates == 4
    assert len(frames) == 1
    assert not same(masks[1], masks[2])
    assert same(engine.masks, plain.engine.masks)
    torch._dynamo.reset()


def test_state_dict_and_export_see_a_plain_model() -> None:
    model = mlp(6, 10, 4)
    keys = list(model.state_dict())
    run = training(model, preset("RigL", every=1))
    for batch in batches(3, 8, 6, 4):
        run.step(batch)
    assert list(model.state_dict()) == keys
    assert [name for name, _ in model.named_buffers()] == []
    sample = torch.randn(3, 6)
    exported = torch.export.export(model, (sample,))
    assert list(exported.state_dict) == keys
    nodes = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    dense = torch.export.export(mlp(6, 10, 4), (sample,))
    assert nodes == [node.target for node in dense.graph.nodes if node.op == "call_function"]
    assert torch.equal(exported.module()(sample), model(sample))
    fresh = mlp(6, 10, 4, seed=9)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(sample), model(sample))
