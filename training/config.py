"""What a training does: the options of `limtr train` and the recipe they resolve to."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from limtr.scene import ObjectType
from training.schedules import ScheduleName
from training.sparsity import DEFAULTS, Sparsity, SparsityOptions

PresetName = Literal["tiny", "mtr", "limtr", "limtr-sparse", "limtr-sparse-all"]
ClassName = Literal["vehicle", "pedestrian", "cyclist"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A resolved training recipe; it is saved with every checkpoint and must be the same on resume."""

    preset: PresetName
    epochs: int | None
    """Passes over the training split; None if `steps` or `minutes` alone set the length."""
    steps: int | None
    minutes: float | None
    batch_size: int
    accumulate: int
    learning_rate: float
    weight_decay: float
    schedule: ScheduleName
    clip_norm: float
    ema_decay: float | None
    precision: Precision
    fraction: float
    classes: tuple[ClassName, ...]
    max_distance_m: float | None
    lidar: bool
    drop_map: float
    drop_vehicles: float
    mirror: float
    label_smoothing: float | None
    class_weights: tuple[float, float, float] | None
    nms_distance_m: tuple[float, float, float] | None
    num_lidar_points: int | None
    traffic_signals: bool
    seed: int
    validate_every: int
    validation_scenes: int | None
    sparsity: Sparsity | None = None
    """How the model is sparse; None: it is dense."""

    def __post_init__(self) -> None:
        """Validate."""
        positive = ("epochs", "steps", "minutes", "batch_size", "accumulate", "learning_rate", "clip_norm", "max_distance_m",
                    "validation_scenes")  # fmt: skip
        for name in positive:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, is {value}")
        for name in ("weight_decay", "seed", "validate_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, is {getattr(self, name)}")
        if self.epochs is None and self.steps is None and self.minutes is None:
            raise ValueError("one of epochs, steps and minutes must be set, else the training has no end")
        if not 0.0 < self.fraction <= 1.0:
            raise ValueError(f"fraction must be above 0 and at most 1, is {self.fraction}")
        if self.ema_decay is not None and not 0.0 < self.ema_decay < 1.0:
            raise ValueError(f"ema_decay must be between 0 and 1, is {self.ema_decay}")
        for name in ("drop_map", "drop_vehicles"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be at least 0 and below 1, is {getattr(self, name)}")
        if not 0.0 <= self.mirror <= 1.0:
            raise ValueError(f"mirror must be from 0 to 1, is {self.mirror}")
        if not self.classes:
            raise ValueError("classes must name at least one of vehicle, pedestrian, cyclist")

    @property
    def object_types(self) -> tuple[ObjectType, ...]:
        """`classes` as WOMD types."""
        return tuple(ObjectType[name.upper()] for name in self.classes)


_COMMON: dict[str, Any] = {
    "steps": None, "minutes": None, "accumulate": 1, "weight_decay": 0.01, "clip_norm": 1000.0, "ema_decay": None,
    "precision": "fp32", "fraction": 1.0, "classes": ("vehicle", "pedestrian", "cyclist"), "max_distance_m": None,
    "drop_map": 0.0, "drop_vehicles": 0.0, "mirror": 0.0, "label_smoothing": None, "class_weights": None,
    "nms_distance_m": None, "num_lidar_points": None, "traffic_signals": False, "seed": 0, "validate_every": 1,
    "validation_scenes": None,
}  # fmt: skip
_LIMTR: dict[str, Any] = {
    **_COMMON, "epochs": 60, "batch_size": 4, "accumulate": 16, "learning_rate": 3e-4, "schedule": "warmup-linear",
    "lidar": True,
}  # fmt: skip
_SPARSE: dict[str, Any] = {**DEFAULTS, "method": "rigl", "every": 100}
PRESETS: dict[PresetName, dict[str, Any]] = {
    # The published recipes: MTR on 8 GPUs x 10 scenes, LiMTR (lidar_full) 4 scenes x accumulation 4 on each GPU.
    "mtr": {**_COMMON, "epochs": 30, "batch_size": 80, "learning_rate": 1e-4, "schedule": "mtr", "lidar": False},
    "limtr": _LIMTR,
    "limtr-sparse": {**_LIMTR, "sparsity": Sparsity(**_SPARSE)},
    "limtr-sparse-all": {**_LIMTR, "sparsity": Sparsity(**{**_SPARSE, "include": ("*",)})},
    "tiny": {**_COMMON, "epochs": 12, "batch_size": 2, "learning_rate": 1.5e-3, "schedule": "cosine", "lidar": True,
             "clip_norm": 100.0, "ema_decay": 0.99, "validate_every": 6},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of `limtr train`. What is left out is the preset's."""

    data: Path
    """Folder of the preprocessed dataset (what `limtr preprocess --out` wrote)."""
    out: Path
    """Folder of the run: checkpoints, logs, report."""
    preset: PresetName = "tiny"
    """Model and recipe."""
    epochs: int | None = None
    """Passes over the training split."""
    steps: int | None = None
    """Optimizer steps; the training ends at whichever of epochs, steps and minutes comes first."""
    minutes: float | None = None
    """Time budget. Alone it sets the length; the schedule then follows the larger of the step and the time share."""
    batch_size: int | None = None
    """Scenes per batch, those of all workers together."""
    accumulate: int | None = None
    """Batches per optimizer step; each counts alike."""
    learning_rate: float | None = None
    """Largest learning rate."""
    weight_decay: float | None = None
    """AdamW's decoupled weight decay."""
    schedule: ScheduleName | None = None
    """Learning-rate schedule."""
    clip_norm: float | None = None
    """Largest gradient norm."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, for example 0.999; the average is what is evaluated and saved.
    0: no average."""
    precision: Precision | None = None
    """Arithmetic of the forward pass; bf16 by default on CUDA, fp32 elsewhere."""
    fraction: float | None = None
    """Share of the training scenes to use, spread evenly."""
    classes: tuple[ClassName, ...] | None = None
    """Train on targets of these classes only."""
    max_distance_m: float | None = None
    """Train on targets at most this far from the recording vehicle at the current step, in metres."""
    lidar: bool = True
    """Use LiDAR points where the preset does; --no-lidar trains the same model without."""
    drop_map: float | None = None
    """Share of centre agents whose whole map is hidden in training."""
    drop_vehicles: float | None = None
    """Share of vehicle targets that are left out in training, to balance the classes."""
    mirror: float | None = None
    """Share of scenes whose left and right are exchanged in training, for example 0.5."""
    label_smoothing: float | None = None
    """Share of the classification target taken from the positive query and spread over all."""
    class_weights: tuple[float, float, float] | None = None
    """Weights of vehicles, pedestrians and cyclists in the loss."""
    nms_distance_m: tuple[float, float, float] | None = None
    """End points nearer than this are one mode, in metres: vehicles, pedestrians, cyclists."""
    num_lidar_points: int | None = None
    """LiDAR points read per agent and frame (shards hold up to `limtr preprocess --points`)."""
    traffic_signals: bool = False
    """Tell lanes' traffic-light states to the model."""
    seed: int | None = None
    """Seed of the weights, the order of the scenes and dropout."""
    validate_every: int | None = None
    """Epochs between validations; 0 for none but the last."""
    validation_scenes: int | None = None
    """At most so many validation scenes while training."""
    sparsity: SparsityOptions = field(default_factory=SparsityOptions)
    init_from: Path | None = None
    """Start from these weights (a run, a checkpoint, or a reference MTR or LiMTR file); tensors that do not fit are named."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    workers: int = 0
    """Loader processes of each training process; 0 reads in the training process."""
    cache_gib: float = 2.0
    """Decoded scenes kept in memory by each training process (with --workers 0), in GiB."""
    num_workers: int = 0
    """Training processes on Ray Train, which share every batch; 0: this process alone, or those that torchrun started."""
    gpu: bool = False
    """With --num-workers: one GPU for each."""
    ray_address: str | None = None
    """With --num-workers: a running Ray cluster, such as auto or HOST:6379; without it a local Ray is started. --data and --out
    must be on a file system that all machines see."""
    max_failures: int = 3
    """With --num-workers: how often Ray starts the workers again after one died, each time from the newest checkpoint."""
    rank_timeout_s: float = 600.0
    """A process that waits longer than this for another one ends with an error, in seconds."""
    checkpoint_every_s: float = 300.0
    """Seconds of training between checkpoints within an epoch."""
    keep: int = 3
    """Checkpoints to keep beside the best one."""
    licence: str = "unspecified: name the licence of the training data with --licence"
    """Licence of the data; written into every checkpoint."""

    def __post_init__(self) -> None:
        """Validate what is not in the recipe."""
        if self.num_workers < 0:
            raise ValueError(f"--num-workers must not be negative, is {self.num_workers}")
        if self.max_failures < 0:
            raise ValueError(f"--max-failures must not be negative, is {self.max_failures}")
        if self.rank_timeout_s <= 0:
            raise ValueError(f"--rank-timeout-s must be above 0, is {self.rank_timeout_s}")
        if self.checkpoint_every_s < 0:
            raise ValueError(f"--checkpoint-every-s must not be negative, is {self.checkpoint_every_s}")

    def recipe(self, *, on_cuda: bool) -> Recipe:
        """The preset's recipe with the given options in its place."""
        values = {"preset": self.preset, **PRESETS[self.preset]}
        if on_cuda:
            values["precision"] = "bf16"
        if self.epochs is None and (self.steps is not None or self.minutes is not None):
            values["epochs"] = None
        for each in fields(Recipe):
            chosen = getattr(self, each.name)
            if each.name == "lidar":
                values["lidar"] = values["lidar"] and chosen
            elif each.name == "sparsity":
                values["sparsity"] = self.sparsity.resolved(values.get("sparsity"))
            elif chosen is not None:
                values[each.name] = chosen
        values["ema_decay"] = values["ema_decay"] or None
        return Recipe(**values)
