"""Training on Ray: Ray Train starts the ranks, joins them in a process group, and starts them again when one dies.

Ray learns of no checkpoint and keeps none: after a death its record may lack the newest one, and a run of the same name would
go on with another configuration's. The ranks look for the newest whole checkpoint of the run folder themselves, as a process
alone does, and refuse one that was made with other options.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from limtr.run_report import package_versions
from preprocessing.ray_address import require_ray
from preprocessing.shards import SceneSource, data_fingerprint
from training.checkpoint import CheckpointStore, require_same
from training.config import TrainConfig
from training.distributed import NotReadyError, joined, require_even_split
from training.loop import Interrupt, NonFiniteLossError
from training.train import train

OBJECT_STORE_BYTES = 128 * 2**20
"""Only options and exit statuses travel through Ray's object store."""
COMPARED_PACKAGES = ("python", "limtr", "torch", "numpy", "ray")
STOP_FILE = "stop-requested"
SIGNAL_CHECK_S = 0.5
HANGING_WORKER = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
"""Ray's own limit for a worker that does not answer."""
PRINTS_AS_LOG = "RAY_TRAIN_ENABLE_PRINT_PATCH"
"""Whether Ray Train turns what a worker prints into log lines; it would show each twice, and those of quiet ranks too."""


def train_on_ray(config: TrainConfig) -> int:
    """Train with `config.num_workers` ranks; the exit status as for `limtr train`.

    Raises:
        ValueError: a batch that the workers cannot share, options that differ from those of the run, too small a cluster.
        OSError: no Ray at the address, or the workers died more often than `config.max_failures`.
    """
    # Workers start in a folder of their own.
    start = None if config.init_from is None else config.init_from.resolve()
    config = replace(config, data=config.data.resolve(), out=config.out.resolve(), init_from=start)
    check_before_start(config)
    if config.ray_address is not None:
        require_ray(config.ray_address)
    # Ray's own types are partly missing.
    if config.ray_address is None:
        # Without this, Ray of our own writes a token into the home folder, and dies where that cannot be written.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault(HANGING_WORKER, str(config.rank_timeout_s))
    os.environ.setdefault(PRINTS_AS_LOG, "0")
    try:
        ray: Any = import_module("ray")
        import_module("ray.train")
    except ImportError as error:
        raise ValueError(f"--num-workers needs Ray Train: python -m pip install 'ray[train]' ({error})") from error
    started_here = not ray.is_initialized()
    if started_here:
        start_ray(ray, config)
    try:
        require_resources(ray.cluster_resources(), config)
        return fit(config)
    finally:
        if started_here:
            ray.shutdown()


def check_before_start(config: TrainConfig) -> None:
    """Find what can be wrong with the options before any worker is started.

    Raises:
        ValueError: as for `train_on_ray`.
    """
    if config.device not in ("auto", "cuda" if config.gpu else "cpu"):
        raise ValueError(f"--device {config.device}: with --num-workers, --gpu alone chooses between GPUs and the CPU")
    recipe = config.recipe(on_cuda=config.gpu)
    require_even_split(recipe.batch_size, config.num_workers)
    SceneSource(config.data, "train")
    latest = CheckpointStore(config.out, keep=config.keep).latest()
    if latest is not None:
        require_same(CheckpointStore.load_state(latest), recipe, data_fingerprint(config.data), latest)


def needed_cpus(config: TrainConfig) -> int:
    """CPUs of each worker: one for the training and one for each of its readers."""
    return 1 + config.workers


def start_ray(ray: Any, config: TrainConfig) -> None:
    """Connect to the cluster, or start a Ray that has a place for every worker."""
    if config.ray_address is not None:
        ray.init(address=config.ray_address, logging_level="error", logging_config=ray.LoggingConfig(log_level="ERROR"))
        return
    ray.init(
        address="local",  # even where RAY_ADDRESS points to a cluster that nobody asked for here
        # Places, not cores: workers may share those that there are, but without a place they would wait forever.
        num_cpus=config.num_workers * needed_cpus(config) + 1,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        logging_level="error",
        # Of the workers: Ray Train warns there every second that a Ray without dashboard has no dashboard.
        logging_config=ray.LoggingConfig(log_level="ERROR"),
    )


def require_resources(resources: dict[str, float], config: TrainConfig) -> None:
    """Refuse what the cluster has no place for: Ray would wait for it in silence.

    Raises:
        ValueError: names what is there and what is needed.
    """
    needed = {"CPU": config.num_workers * needed_cpus(config), "GPU": config.num_workers if config.gpu else 0}
    for name, count in needed.items():
        there = int(resources.get(name, 0))
        if there < count:
            raise ValueError(
                f"{config.num_workers} workers with {config.workers} readers each need {count} {name}s, Ray has {there}: use a"
                " smaller --num-workers" + (" or --workers" if name == "CPU" else ", or train without --gpu")
            )


def fit(config: TrainConfig) -> int:
    """Let Ray Train run the workers to the end; the exit status of the first one."""
    ray_train: Any = import_module("ray.train")
    ray_torch: Any = import_module("ray.train.torch")
    exceptions: Any = import_module("ray.train.v2.api.exceptions")
    backend = ray_torch.TorchConfig(backend="nccl" if config.gpu else "gloo", timeout_s=max(round(config.rank_timeout_s), 1))
    trainer = ray_torch.TorchTrainer(
        work,
        train_loop_config={"options": config, "versions": compared_versions()},
        torch_config=backend,
        scaling_config=ray_train.ScalingConfig(
            num_workers=config.num_workers, use_gpu=config.gpu, resources_per_worker=worker_resources(config)
        ),
        run_config=ray_train.RunConfig(
            name="ray",
            storage_path=str(config.out),
            failure_config=ray_train.FailureConfig(max_failures=config.max_failures),
        ),
    )
    try:
        outcome = until_the_end(trainer.fit, config.out / STOP_FILE).return_value
    except exceptions.TrainingFailedError as error:
        raise ChildProcessError(
            f"the workers failed more often than --max-failures {config.max_failures} allows; mend the cause and go on with"
            f" --resume. {first_words(error)}"
        ) from error
    if isinstance(outcome, str):
        raise ValueError(outcome)
    return int(outcome)


def worker_resources(config: TrainConfig) -> dict[str, float]:
    """What Ray reserves for each worker."""
    return {"CPU": float(needed_cpus(config)), **({"GPU": 1.0} if config.gpu else {})}


def compared_versions() -> dict[str, str]:
    """Versions that must be the same on all machines of a training."""
    versions = package_versions()
    return {name: versions.get(name, "not installed") for name in COMPARED_PACKAGES}


def require_same_versions(theirs: dict[str, str]) -> None:
    """Refuse to train beside a machine with other versions.

    Raises:
        ValueError: names them.
    """
    differing = [
        f"{name} {own} here, {theirs.get(name)} there" for name, own in compared_versions().items() if theirs.get(name) != own
    ]
    if differing:
        raise ValueError(
            f"{os.uname().nodename} has other versions than the machine that started the training ({'; '.join(differing)}):"
            " install the same on both"
        )


def work(loop_config: dict[str, Any]) -> int | str:
    """What each of Ray's workers does; the exit status, or what went wrong where trying again would not help."""
    ray_torch: Any = import_module("ray.train.torch")
    config: TrainConfig = loop_config["options"]
    device = ray_torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    ranks = joined(device, config.rank_timeout_s)
    try:
        with ranks.all_or_none():
            require_same_versions(loop_config["versions"])
        # Whether this is the first start or the next one after a death: what is on the disk is gone on with.
        return train(replace(config, resume=True), ranks, config.out / STOP_FILE if ranks.is_first else None)
    except (NotReadyError, NonFiniteLossError) as error:
        return str(error)


def first_words(error: Any) -> str:
    """The errors of the workers, one line each."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", None) or {}
    lines = [f"rank {rank}: {str(failure).strip().splitlines()[-1]}" for rank, failure in failures.items() if str(failure)]
    return "; ".join(lines) or str(error).strip().splitlines()[0]


def until_the_end(fit: Callable[[], Any], stop_file: Path) -> Any:
    """What `fit` returns; a SIGTERM or Ctrl-C, which reaches no worker, becomes the file that the first worker looks for.

    Raises:
        KeyboardInterrupt: at a second signal.
    """
    stop_file.unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        return fit()
    interrupt = Interrupt()
    result: Future[Any] = Future()

    def call() -> None:
        try:
            result.set_result(fit())
        except BaseException as error:
            result.set_exception(error)

    # In a thread of its own: in the main one Ray takes Ctrl-C for itself, and ends the workers in the middle of a step.
    with interrupt.watch():
        threading.Thread(target=call, daemon=True).start()
        while not result.done():
            wait([result], timeout=SIGNAL_CHECK_S)
            if interrupt.requested and not stop_file.exists():
                stop_file.parent.mkdir(parents=True, exist_ok=True)
                stop_file.touch()
    stop_file.unlink(missing_ok=True)
    return result.result()
