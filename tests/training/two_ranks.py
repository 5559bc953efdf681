"""What tests/training/test_distributed.py compares, made by one process alone or by each of two ranks."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import sparse_core
from evaluation.scoring import SceneReader
from limtr.masked_norm import MaskedBatchNorm
from limtr.predictor import MotionPredictor
from limtr.scene import PREDICTED_TYPES, Scene
from preprocessing.shards import scene_entry
from tests.builders import tiny_scene
from tests.training.small import recipe, small_config
from training.checkpoint import CheckpointStore
from training.config import Recipe
from training.data import SelectedScenes, select
from training.distributed import ALONE, RankLostError, Ranks, naming_lost_ranks
from training.loop import NonFiniteLossError, Trainer
from training.session import Session
from training.sparsity import MethodName, SparsityOptions
from training.validation import validate

STEPS = 20


def scenes() -> list[Scene]:
    """Seven scenes as unlike as they come: other numbers of tracks and targets, without LiDAR, without a known future."""
    made = [tiny_scene(seed, num_tracks=3 + seed % 3, num_targets=1 + seed % 3, with_lidar=seed % 3 != 0) for seed in range(7)]
    valid = made[4].track_valid.copy()
    valid[made[4].tracks_to_predict[0], 11:] = False
    made[4] = replace(made[4], track_valid=valid)
    return made


SCENES = scenes()
VALIDATION = [replace(scene, scenario_id=f"{scene.scenario_id} {copy}") for copy in range(5) for scene in SCENES]
"""35 scenes are two batches of 16 and one of 3: the first of two ranks has 19 of them."""


@dataclass(frozen=True)
class Case:
    """A training."""

    options: dict[str, Any]
    num_scenes: int = 7
    dtype: torch.dtype = torch.float64
    method: Callable[[], sparse_core.Method] | None = None
    adam_eps: float = 1e-8
    steps: int = STEPS


def rigl() -> sparse_core.Method:
    return sparse_core.RigL(density=0.5, every=3, end=15)


def evolutionary() -> sparse_core.Method:
    return sparse_core.SET(density=0.5, every=3, end=15)


RECIPE_SPARSITY: dict[str, Any] = {
    "density": 0.3, "every": 3, "include": ("encoder.*", "decoder.*"), "exclude": ("decoder.*.sa_*",),
    "parts": ("decoder.*=0.5",),
}  # fmt: skip
"""All queries begin with the same content, so that it does not matter whom they attend to in the first decoder layer, the only
one here: the gradients of that attention's queries and keys are nothing but rounding, and so are links that grow by them."""

CASES = {
    "halves, and a last batch of three": Case({"batch_size": 4}),
    "float32": Case({"batch_size": 4}, dtype=torch.float32),
    "RigL in float32": Case({"batch_size": 4}, method=rigl, dtype=torch.float32, adam_eps=1e-5),
    "RigL, accumulated": Case({"batch_size": 2, "accumulate": 2}, method=rigl),
    "SET": Case({"batch_size": 4}, method=evolutionary),
    "RigL of the recipe": Case(
        {"batch_size": 4, "ema_decay": 0.9, "sparsity": SparsityOptions(method="rigl", start="magnitude", **RECIPE_SPARSITY)}
    ),
    "SET of the recipe": Case(
        {"batch_size": 4, "sparsity": SparsityOptions(method="set", **{**RECIPE_SPARSITY, "exclude": ()})}
    ),
    "static of the recipe": Case(
        {"batch_size": 4, "sparsity": SparsityOptions(method="static", **{**RECIPE_SPARSITY, "exclude": ()})}
    ),
    "a rank without a scene, or without LiDAR": Case({"batch_size": 2, "ema_decay": 0.9}, num_scenes=5, adam_eps=1e-5, steps=8),
    "a rank without targets, accumulated": Case(
        {"batch_size": 2, "accumulate": 2, "drop_vehicles": 0.8}, adam_eps=1e-5, steps=8
    ),
}
LEARNING_RATE = 1e-4
"""MTR's own. The model is blind to some of its weights, such as a bias in front of a batch norm: their gradients are nothing
but rounding, and Adam makes steps of any size of those. At ten times the rate in float32, two ranks are after 20 steps as far
from one process as that is from itself with the scenes of each batch in the reverse order (6 % of the loss). Cases with batches
of two targets have a larger `eps`, below which Adam's steps follow the size of the gradient."""


def trainer_of(
    wanted: Recipe,
    ranks: Ranks,
    *,
    num_scenes: int = 7,
    dtype: torch.dtype = torch.float32,
    dropout: float = 0.0,
    seed: int = 0,
) -> Trainer:
    chosen = SCENES[:num_scenes]
    index = [scene_entry(scene, row) for row, scene in enumerate(chosen)]
    selection = select(index, range(num_scenes), PREDICTED_TYPES, None)
    config = small_config()
    config = replace(config, encoder=replace(config.encoder, dropout=dropout), decoder=replace(config.decoder, dropout=dropout))
    torch.manual_seed(seed)
    model = MotionPredictor(config).to(dtype)
    data = SelectedScenes(chosen, selection, drop_vehicles=wanted.drop_vehicles, seed=wanted.seed)
    return Trainer(model, data, wanted, device=torch.device("cpu"), ranks=ranks)


def trained(case: Case, ranks: Ranks, *, steps: int | None = None) -> dict[str, Any]:
    """Numbers of every step, and the weights and masks at the end."""
    wanted = recipe(steps=steps or case.steps, learning_rate=LEARNING_RATE, **case.options)
    trainer = trainer_of(wanted, ranks, num_scenes=case.num_scenes, dtype=case.dtype)
    for parameter_group in trainer.optimizer.param_groups:
        parameter_group["eps"] = case.adam_eps
    engine = None
    if case.method is not None:
        engine = sparse_core.sparsify(trainer.model, trainer.optimizer, case.method(), seed=3)
    elif trainer.sparse is not None:
        engine = trainer.sparse.engine
    first_masks = {} if engine is None else {name: mask.clone() for name, mask in engine.masks.items()}
    begun = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    numbers_of: list[dict[str, float]] = []
    read: list[list[tuple[int, bool]]] = []
    step = trainer._step

    def reading(group: Any) -> dict[str, float]:
        read.append([(batch.num_centers, batch.lidar_points is not None) for batch in group])
        return step(group)

    trainer._step = reading  # type: ignore[method-assign]

    def on_step(numbers: Any) -> None:
        numbers_of.append({name: value for name, value in numbers.items() if name != "samples_per_s"})

    trainer.run(on_step=on_step, on_epoch=lambda: None)
    return {
        "steps": numbers_of,
        "targets and LiDAR": read,
        "samples": trainer.position.samples,
        "begun": begun,
        "weights": {name: value.detach().clone() for name, value in trainer.model.named_parameters()},
        "buffers": {name: value.clone() for name, value in trainer.model.named_buffers()},
        "average": {} if trainer.average is None else trainer.average.average,
        "first masks": first_masks,
        "masks": {} if engine is None else {name: mask.clone() for name, mask in engine.masks.items()},
        "updates": 0 if engine is None else engine.updates,
    }


NORM_MASK = torch.tensor([[True, True, False], [False, False, False], [True, False, True], [True, True, True]])


def normalised(ranks: Ranks, rows: slice, use_mask: bool, *, compiled: bool = False) -> dict[str, torch.Tensor]:
    """A masked batch norm on some rows of a batch: output, gradients and running statistics."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    weights = torch.randn(4, 3, 5, dtype=torch.float64)
    norm = MaskedBatchNorm(5).double()
    torch.nn.init.normal_(norm.weight)
    own = x[rows].clone().requires_grad_()
    mask = NORM_MASK[rows] if use_mask else None
    call = torch.compile(norm, backend="aot_eager", fullgraph=True) if compiled else norm
    out = call(own, mask)
    counted = out if mask is None else out * mask.unsqueeze(-1)
    (counted.tanh() * weights[rows]).sum().backward()
    assert own.grad is not None
    assert norm.weight.grad is not None
    return {
        "out": counted.detach(), "input gradient": own.grad, "weight gradient": ranks.add_up(norm.weight.grad),
        "mean": norm.running_mean, "variance": norm.running_var,
    }  # fmt: skip


def session_of(
    run: Path, wanted: Recipe, ranks: Ranks, *, seed: int = 0, dropout: float = 0.3, dtype: torch.dtype = torch.float32
) -> Session:
    trainer = trainer_of(wanted, ranks, dropout=dropout, seed=seed, dtype=dtype)
    torch.manual_seed(1000 + ranks.rank)
    source: SceneReader = VALIDATION
    return Session(
        trainer,
        run,
        validate=lambda: validate(trainer.model, source, len(source), ranks),
        data_fingerprint="data",
        licence="CC0",
    )


def resumed(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """A run that one rank was told to stop, gone on with by others, and the same run undisturbed."""
    wanted = recipe(steps=6, batch_size=2, drop_map=0.5, validate_every=1)
    straight = session_of(folder / "straight", wanted, ranks)
    straight.run()
    first = session_of(folder / "parts", wanted, ranks)
    step = first.trainer._step

    def interrupted(group: Any) -> dict[str, float]:
        if ranks.rank == ranks.count - 1 and first.trainer.position.step == 1:
            first.trainer.interrupt.requested = True
        return step(group)

    first.trainer._step = interrupted  # type: ignore[method-assign]
    first.run()
    stopped_at = first.trainer.position.step
    second = session_of(folder / "parts", wanted, ranks, seed=99)
    torch.manual_seed(5)
    latest = ranks.from_first(second.store.latest())
    assert latest is not None
    second.restore(latest)
    second.run()
    return {
        "stopped at": stopped_at,
        "straight": straight.trainer.model.state_dict(),
        "parts": second.trainer.model.state_dict(),
        "drawn": (torch.get_rng_state(), torch.rand(())),
        "validation": dict(second.metrics),
        "straight validation": dict(straight.metrics),
    }


def sparse_session(run: Path, ranks: Ranks, *, method: MethodName, seed: int = 0) -> Session:
    """A sparse training in float64 without dropout, which any number of ranks make alike."""
    wanted = recipe(
        steps=12, batch_size=2, learning_rate=LEARNING_RATE, sparsity=SparsityOptions(method=method, **RECIPE_SPARSITY)
    )
    return session_of(run, wanted, ranks, seed=seed, dropout=0.0, dtype=torch.float64)


RESUMED_METHODS: tuple[MethodName, ...] = ("rigl", "set")
STOPPED_AT = 5


def stopped(session: Session) -> None:
    """Train until an interrupt between two updates."""
    session.trainer.interrupt.stop_file = Stopping(session)  # type: ignore[assignment]
    session.run()
    assert session.trainer.position.step == STOPPED_AT


class Stopping:
    """Stands for a stop file that appears during a step."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def exists(self) -> bool:
        return self.session.trainer.position.step == STOPPED_AT - 1


def taken_over(run: Path, ranks: Ranks, *, method: MethodName) -> dict[str, Any]:
    """A run that others were stopped in, gone on with by these ranks: weights, masks and what is told of them."""
    session = sparse_session(run, ranks, method=method, seed=99)
    latest = ranks.from_first(session.store.latest())
    assert latest is not None
    session.restore(latest)
    session.run()
    return sparse_result(session)


def sparse_result(session: Session) -> dict[str, Any]:
    sparse = session.trainer.sparse
    assert sparse is not None
    numbers = sparse.summary()
    return {
        "weights": {name: value.detach().clone() for name, value in session.trainer.model.named_parameters()},
        "masks": {name: mask.clone() for name, mask in sparse.engine.masks.items()},
        "layers": numbers.pop("layers"),
        "numbers": numbers,
    }


def begun_by_one(folder: Path) -> None:
    """Runs that one process is stopped in."""
    for method in RESUMED_METHODS:
        stopped(sparse_session(folder / f"{method} of one", ALONE, method=method))


def exchanged(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Runs that these ranks are stopped in, and what they make of those that one process began."""
    found = {}
    for method in RESUMED_METHODS:
        stopped(sparse_session(folder / f"{method} of two", ranks, method=method))
        found[method] = taken_over(folder / f"{method} of one", ranks, method=method)
    return found


def bad_loss(ranks: Ranks) -> str:
    """What is said of a loss that is not finite on the last rank alone."""
    trainer = trainer_of(recipe(steps=3, batch_size=2), ranks)
    decode = trainer.model.decode

    def spoilt(agents: Any) -> Any:
        outputs = decode(agents)
        if ranks.rank == ranks.count - 1:
            layer = replace(outputs.layers[0], scores=outputs.layers[0].scores * float("nan"))
            outputs = replace(outputs, layers=(layer, *outputs.layers[1:]))
        return outputs

    trainer.model.decode = spoilt  # type: ignore[method-assign]
    try:
        trainer.run(on_step=lambda numbers: None, on_epoch=lambda: None)
    except NonFiniteLossError as error:
        return str(error)
    return "no error"


def unprepared(ranks: Ranks) -> str:
    """What a rank says when the last one cannot begin."""
    try:
        with ranks.all_or_none():
            if ranks.rank == ranks.count - 1:
                raise FileNotFoundError("no shards here; copy them")
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def spoilt_second_step(ranks: Ranks, spoil: Callable[[], None]) -> str:
    """What a rank says when the last one does something in the middle of its second step."""
    trainer = trainer_of(recipe(steps=5, batch_size=2), ranks)
    decode = trainer.model.decode

    def spoiling(agents: Any) -> Any:
        if ranks.rank == ranks.count - 1 and trainer.position.step == 1:
            spoil()
        return decode(agents)

    trainer.model.decode = spoiling  # type: ignore[method-assign]
    try:
        with naming_lost_ranks(ranks, lambda: f"at step {trainer.position.step + 1}"):
            trainer.run(on_step=lambda numbers: None, on_epoch=lambda: None)
    except RankLostError as error:
        return str(error)
    return "no error"


def wait_for(file: Path) -> None:
    """A rank that hangs: it goes on once the others have given it up."""
    while not file.exists():
        time.sleep(0.05)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def group(rank: int, count: int, meeting: str, timeout_s: float) -> Iterator[Ranks]:
    """A process group for as long as the block lasts."""
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=count, timeout=timedelta(seconds=timeout_s)
    )
    yield Ranks(rank=rank, count=count, timeout_s=timeout_s)
    dist.destroy_process_group()


HANG_LIMIT_S = 3.0
PARTS = {"even": (slice(0, 2), slice(2, 4)), "uneven": (slice(0, 1), slice(1, 4)), "nothing valid": (slice(1, 2), slice(2, 4))}
"""Rows of a batch of four that each of two ranks has."""


def rank_main(rank: int, count: int, folder: str) -> None:
    """One of the ranks: everything, then a rank that hangs, then the death of the last one."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    here = Path(folder)
    if rank == 0:
        begun_by_one(here / "runs")  # before there is a group, which batch norms would ask
    with group(rank, count, f"{folder}/meeting", 200.0) as ranks:
        found: dict[str, Any] = {name: trained(case, ranks) for name, case in CASES.items()}
        for use_mask in (False, True):
            for name, parts in PARTS.items():
                found[f"norm {name} {use_mask}"] = normalised(ranks, parts[rank], use_mask)
        found["norm compiled"] = normalised(ranks, PARTS["uneven"][rank], use_mask=True, compiled=True)
        found["resumed"] = resumed(here / "runs", ranks)
        found["exchanged"] = exchanged(here / "runs", ranks)
        found["bad loss"] = bad_loss(ranks)
        found["prepared"] = unprepared(ranks)
        torch.save(found, here / f"{rank}.pt")
    with group(rank, count, f"{folder}/hanging", HANG_LIMIT_S) as ranks:
        message = spoilt_second_step(ranks, lambda: wait_for(here / "hung.txt"))
        if ranks.is_first:
            (here / "hung.txt").write_text(message)
    with group(rank, count, f"{folder}/dying", 200.0) as ranks:
        (here / "left_alone.txt").write_text(spoilt_second_step(ranks, die))


def checkpoint_tensors(run: Path) -> dict[str, torch.Tensor]:
    latest = CheckpointStore(run).latest()
    assert latest is not None
    return CheckpointStore.load_state(latest).tensors
