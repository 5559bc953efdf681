"""Training end to end on tiny scenes: falling loss, resume bit for bit, interrupts, bad losses, full disks."""

import errno
import json
import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from limtr.batch import SceneBatch
from limtr.loss import LossTerms, compute_loss
from limtr.predictor import MotionPredictor
from tests.training.small import CPU, SCENES, assert_same_tensors, recipe, session
from training import checkpoint, loop
from training.checkpoint import CheckpointStore, file_checksum
from training.data import epoch_batches
from training.loop import Interrupt, NonFiniteLossError, Trainer
from training.session import Session


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stop_after(part: Session, step: int) -> None:
    """Ask for an interrupt once a step is done, as Ctrl-C would."""
    trainer = part.trainer
    original = trainer._step

    def counted(group: Any) -> dict[str, float]:
        if trainer.position.step + 1 == step:
            trainer.interrupt.requested = True
        return original(group)

    trainer._step = counted  # type: ignore[method-assign]


def test_the_loss_falls_on_a_few_scenes(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=25, batch_size=6, learning_rate=2e-3))
    part.run()
    assert part.last_train["loss"] < 0.7 * part.first_train["loss"]


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate": 2}, {"ema_decay": 0.9}, {"drop_map": 0.5, "drop_vehicles": 0.5}],
    ids=["plain", "accumulate", "ema", "augmented"],
)
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path, options: dict[str, Any]) -> None:
    wanted = recipe(steps=5, **options)
    straight = session(tmp_path / "straight", wanted)
    straight.run()
    first = session(tmp_path / "parts", wanted)
    stop_after(first, 2)  # in the middle of the first epoch
    first.run()
    assert first.trainer.position.step == 2
    second = session(tmp_path / "parts", wanted, seed=99)
    latest = second.store.latest()
    assert latest is not None
    second.restore(latest)
    second.run()
    assert second.trainer.position.step == straight.trainer.position.step == 5
    assert_same_tensors(second.trainer.model.state_dict(), straight.trainer.model.state_dict())
    ends = [CheckpointStore.load_state(part.store.latest() or tmp_path) for part in (straight, second)]
    assert_same_tensors(ends[0].tensors, ends[1].tensors)
    assert ends[0].random_state == ends[1].random_state


def test_a_model_without_lidar_trains_and_predicts(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=1))
    without = MotionPredictor(part.trainer.model.config.without_lidar())
    trainer = Trainer(without, part.trainer.scenes, part.trainer.recipe, device=CPU)
    again = Session(trainer, tmp_path, validate=lambda: {"minADE": 1.0}, data_fingerprint="data", licence="CC0")
    again.run()
    assert np.isfinite(again.last_train["loss"])
    assert MotionPredictor.load(tmp_path).predict(SCENES[0]).xy_m.shape == (2, 6, 80, 2)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    states = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        part = session(tmp_path / name, recipe(steps=2, seed=seed))
        part.run()
        states.append(part.trainer.model.state_dict())
    assert_same_tensors(states[0], states[1])
    assert any(not torch.equal(value, states[2][name]) for name, value in states[0].items())


def test_the_average_is_what_a_checkpoint_shows_and_the_weights_go_on(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=3, ema_decay=0.9))
    part.run()
    saved = MotionPredictor.load(tmp_path)
    average, own = part.trainer.average, dict(part.trainer.model.named_parameters())
    assert average is not None
    for name, value in saved.named_parameters():
        assert torch.equal(value, average.average[name])
    assert any(not torch.equal(value, own[name]) for name, value in saved.named_parameters())


def test_a_checkpoint_names_licence_data_and_recipe_and_loads_for_prediction(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=1))
    part.run()
    latest = part.store.latest()
    assert latest is not None
    state = json.loads((latest / "training_state.json").read_text())
    assert (state["licence"], state["data_fingerprint"], state["recipe"]["steps"]) == ("CC0", "data", 1)
    assert MotionPredictor.load(tmp_path).predict(SCENES[0]).xy_m.shape == (2, 6, 80, 2)


def test_another_recipe_or_other_data_are_refused_by_name(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=1))
    part.run()
    latest = part.store.latest()
    assert latest is not None
    with pytest.raises(ValueError, match=r"learning_rate: was 0\.001, is 0\.5"):
        session(tmp_path, recipe(steps=1, learning_rate=0.5)).restore(latest)
    with pytest.raises(ValueError, match="data: was data, is other"):
        session(tmp_path, recipe(steps=1), fingerprint="other").restore(latest)


def test_a_folder_without_training_state_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no training checkpoint"):
        session(tmp_path / "run", recipe()).restore(tmp_path)


def test_a_loss_that_is_not_finite_names_its_scenarios_and_keeps_the_weights(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=3))
    with torch.no_grad():
        next(iter(part.trainer.model.parameters())).fill_(float("inf"))
    before = {name: value.clone() for name, value in part.trainer.model.named_parameters()}
    with pytest.raises(NonFiniteLossError, match=r"step 1; scenarios of the batch: tiny\d{4}, tiny\d{4}"):
        part.run()
    for name, value in part.trainer.model.named_parameters():
        assert torch.equal(value, before[name])


def test_only_the_scenarios_of_the_batch_with_the_bad_loss_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = session(tmp_path, recipe(steps=3, accumulate=3))
    calls: list[LossTerms] = []

    def second_is_nan(*args: Any) -> LossTerms:
        calls.append(compute_loss(*args))
        return replace(calls[-1], total=calls[-1].total * float("nan")) if len(calls) == 2 else calls[-1]

    monkeypatch.setattr(loop, "compute_loss", second_is_nan)
    order = epoch_batches(len(SCENES), 2, 0, 0)[1]
    names = ", ".join(SCENES[row].scenario_id for row in order)
    with pytest.raises(NonFiniteLossError, match=f"the loss became nan at step 1; scenarios of the batch: {names}\\. "):
        part.run()
    assert len(calls) == 2


def test_a_gradient_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=3))
    parameters = list(part.trainer.model.parameters())
    before = [value.detach().clone() for value in parameters]
    parameters[-1].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteLossError, match=r"the gradient norm became (inf|nan) at step 1; scenarios .* tiny\d{4}"):
        part.run()
    assert all(torch.equal(value, old) for value, old in zip(parameters, before, strict=True))


def test_a_worse_validation_is_not_named_the_best(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=None, epochs=3, validate_every=1))
    errors = iter([2.0, 1.0, 3.0])
    part.validate = lambda: {"minADE": next(errors)}
    part.run()
    latest, best = ((part.store.folder / name).read_text().strip() for name in ("latest.txt", "best.txt"))
    assert (best, latest) == ("step-00000006", "step-00000009")
    assert part.metrics == {"minADE": 3.0, "best_minADE": 1.0}


def test_old_checkpoints_go_but_the_best_and_the_newest_stay(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=1), minade=0.5)
    part.store.keep = 1
    part.run()
    part.validate = lambda: {"minADE": 0.9}
    for step in (2, 3, 4):
        part.trainer.position = replace(part.trainer.position, step=step)
        part.save()
    names = sorted(path.name for path in part.store.folder.glob("step-*"))
    assert names == ["step-00000001", "step-00000004"]
    assert (part.store.folder / "best.txt").read_text().strip() == "step-00000001"


def test_a_full_disk_leaves_the_checkpoints_that_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = session(tmp_path, recipe(steps=1))
    part.run()
    before = part.store.latest()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(checkpoint, "save_file", full)
    part.trainer.position = replace(part.trainer.position, step=2)
    with pytest.raises(OSError, match="No space left"):
        part.save()
    assert part.store.latest() == before
    assert [path.name for path in part.store.folder.iterdir() if path.is_dir()] == ["step-00000001"]


def test_the_log_of_a_resumed_run_has_every_step_once(tmp_path: Path) -> None:
    first = session(tmp_path, recipe(steps=12))
    stop_after(first, 11)
    first.run()
    with (tmp_path / "log.jsonl").open("a") as handle:
        handle.write('{"step": 12, "kind": "train", "loss": 1.0}\n')  # logged after the last checkpoint
        handle.write('{"step": 12, "kind": "train", "lo')  # a killed process may leave half a line
    second = session(tmp_path, recipe(steps=12))
    second.restore(second.store.latest() or tmp_path)
    second.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 10, 12]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [12]
    assert np.isfinite([line["loss"] for line in lines if line["kind"] == "train"]).all()


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves_it(tmp_path: Path, number: signal.Signals) -> None:
    part = session(tmp_path, recipe(steps=3))
    original = part.trainer._step

    def stepping(group: Any) -> dict[str, float]:
        send(number)
        return original(group)

    part.trainer._step = stepping  # type: ignore[method-assign]
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    part.run()
    assert part.trainer.interrupt.requested
    assert CheckpointStore.load_state(part.store.latest() or tmp_path).position.step == 1
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


@pytest.mark.parametrize("steps", [3, 6], ids=["last", "between"])
def test_an_interrupted_validation_keeps_its_steps_and_is_made_up_for(tmp_path: Path, steps: int) -> None:
    wanted = recipe(steps=steps, validate_every=1, ema_decay=0.9)
    part = session(tmp_path, wanted)
    before: list[dict[str, torch.Tensor]] = []

    def interrupted() -> dict[str, float]:
        assert part.trainer.average is not None
        before.append({name: value.clone() for name, value in part.trainer.average.average.items()})
        send(signal.SIGINT)
        raise AssertionError("the signal should have ended the validation")

    part.validate = interrupted
    part.run()
    assert (part.trainer.interrupt.requested, part.trainer.position.step) == (True, 3)
    assert_same_tensors(dict(MotionPredictor.load(tmp_path).named_parameters()), before[0])
    again = session(tmp_path, wanted)
    again.restore(again.store.latest() or tmp_path)
    again.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == list(range(3, steps + 1, 3))


def test_a_validation_that_fails_does_not_cost_the_training(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=2))

    def failing() -> dict[str, float]:
        raise ValueError("a damaged validation shard")

    part.validate = failing
    with pytest.raises(ValueError, match="damaged validation shard"):
        part.run()
    assert CheckpointStore.load_state(part.store.latest() or tmp_path).position.step == 2


def test_what_safetensors_says_of_the_file_system_comes_as_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"weight/x": torch.zeros(10)}
    with pytest.raises(OSError, match="while writing a checkpoint"):
        checkpoint._write_tensors(tensors, tmp_path / "nowhere" / "state.safetensors")

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"No space left.*state\.safetensors") as caught:
        checkpoint._write_tensors(tensors, tmp_path / "state.safetensors")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("damage", ["cut", "tensor", "shape", "json", "list"])
def test_a_damaged_training_state_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    part = session(tmp_path, recipe(steps=1))
    part.run()
    latest = part.store.latest()
    assert latest is not None
    tensors_file, json_file = latest / "training_state.safetensors", latest / "training_state.json"
    tensors = CheckpointStore.load_state(latest).tensors
    name = next(key for key in tensors if key.startswith("weight/"))
    if damage == "cut":
        tensors_file.write_bytes(tensors_file.read_bytes()[:1000])
    elif damage == "tensor":
        save_file({key: value for key, value in tensors.items() if key != name}, tensors_file)
    elif damage == "shape":
        save_file({**tensors, name: torch.zeros(1)}, tensors_file)
    else:
        json_file.write_text("{" if damage == "json" else "[]")
    if damage in ("tensor", "shape"):
        content = json.loads(json_file.read_text())
        json_file.write_text(json.dumps({**content, "checksum": file_checksum(tensors_file)}))
    expected = {"tensor": f"{name} is missing", "shape": f"{name} has shape"}.get(damage, "training_state")
    with pytest.raises(ValueError, match=expected):
        session(tmp_path, recipe(steps=1)).restore(latest)


def test_what_a_killed_process_left_half_written_goes_and_a_step_can_be_saved_twice(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=1))
    part.run()
    half = part.store.folder / ".step-00000009.tmp.1"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    part.save()
    assert [path.name for path in part.store.folder.iterdir() if path.is_dir()] == ["step-00000001"]


def test_a_run_taken_back_to_an_earlier_checkpoint_keeps_what_it_saves(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=1))
    part.store.keep = 1
    part.trainer.position = replace(part.trainer.position, step=30)
    part.save()
    part.trainer.position = replace(part.trainer.position, step=20)
    assert part.save() == part.store.latest()


@pytest.mark.parametrize("interrupted", [True, False])
def test_readers_that_die_of_the_interrupt_end_the_run_between_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    part = session(tmp_path, recipe(steps=3))
    read = loop.load_batches

    def dying(*given: Any, **options: Any) -> Iterator[SceneBatch]:
        yield next(read(*given, **options))
        part.trainer.interrupt.requested = interrupted
        raise RuntimeError("worker exited unexpectedly")

    monkeypatch.setattr(loop, "load_batches", dying)
    with nullcontext() if interrupted else pytest.raises(RuntimeError, match="worker exited"):
        part.run()
    assert part.trainer.position.step == 1
    assert (part.store.latest() is not None) == interrupted


def test_a_validation_sees_the_average_and_the_best_one_is_named(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=3, ema_decay=0.9, validate_every=1))
    seen: list[bool] = []

    def validate() -> dict[str, float]:
        assert part.trainer.average is not None
        own = dict(part.trainer.model.named_parameters())
        seen.append(all(torch.equal(own[name], value) for name, value in part.trainer.average.average.items()))
        return {"minADE": 1.0}

    part.validate = validate
    part.run()
    assert seen == [True]
    assert (part.store.folder / "best.txt").read_text().strip() == "step-00000003"


def test_a_second_interrupt_ends_at_once() -> None:
    interrupt = Interrupt()
    with interrupt.watch():
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
