"""A training's sparse engine: made from the recipe, told in the logs, kept in checkpoints, felt by the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

import sparse_core
from evaluation.sparse_layout import with_packed
from limtr.predictor import MotionPredictor
from sparse_core import SparseEngine, masks
from sparse_core.packing import pack, unpack
from sparse_core.report import Report
from training.ema import WeightAverage
from training.sparse_flops import PredictionFlops
from training.sparsity import Sparsity

_PREFIX = "sparse"


class SparseTraining:
    """`sparse_core`'s engine beside a trainer.

    Args:
        model: becomes sparse at once.
        optimizer: of the model.
        sparsity: how.
        total_steps: of the whole training; None if only the clock knows.
        seed: of everything random in it; the same on all ranks.
        count_flops: counts the operations of a prediction; called once, when they are first told.

    Raises:
        ValueError: a time budget alone sets the training's length, and the method needs a last step; or, as `sparsify` says it,
            patterns and densities do not fit the model.
    """

    def __init__(
        self,
        model: MotionPredictor,
        optimizer: torch.optim.Optimizer,
        sparsity: Sparsity,
        *,
        total_steps: int | None,
        seed: int,
        count_flops: Callable[[], PredictionFlops | None] = lambda: None,
    ) -> None:
        if total_steps is None:
            if sparsity.method != "static":
                raise ValueError(
                    f"--sparsity.method {sparsity.method} needs to know its last step, and --minutes alone sets the length: "
                    "give --steps or --epochs"
                )
            total_steps = 1
        self.engine: SparseEngine = sparse_core.sparsify(
            model,
            optimizer,
            sparsity.as_method(total_steps),
            include=with_packed(model, sparsity.include),
            exclude=sparsity.exclude or None,
            density=sparsity.part_densities() or None,
            seed=seed,
            first="largest" if sparsity.start == "magnitude" else "random",
        )
        if sparsity.scale_weights:
            sparse_core.scale_to_fan_in(model, self.engine.masks)
        self._weights = dict(model.named_parameters())
        self._flops = cache(count_flops)
        self._take_stock(self._copied(), self.engine.updates)

    def _take_stock(self, told: dict[str, torch.Tensor], told_updates: int) -> None:
        """Note what is compared with later: the links and updates that the log told last, and where averages have links."""
        self._before, self._updates_before = told, told_updates
        self._averaged = {name: mask.clone() for name, mask in self.engine.masks.items() if name in self.engine.off_mask}

    @torch.no_grad()
    def cut(self, average: WeightAverage) -> None:
        """Take links that are no more out of the averaged weights, which would remember them otherwise.

        Where weights off the mask live on, a link that comes has gone a long way already: its average begins where it is.
        """
        for name, mask in self.engine.masks.items():
            averaged = average.average[name]
            if name in self._averaged:
                averaged.copy_(torch.where(mask & ~self._averaged[name], self._weights[name], averaged))
                self._averaged[name].copy_(mask)
            averaged.mul_(mask)

    def numbers(self) -> dict[str, float]:
        """For the log: density, exploration, updates, the share of links that changed since the last call, and FLOPs.

        The first call counts operations, which takes the time of predicting a few scenes; later ones scale them by densities.
        """
        report = self.engine.report()
        found = {
            "sparse_density": report.density,
            "sparse_exploration": report.exploration,
            "sparse_updates": float(self.engine.updates),
            "sparse_churn": 0.0,
            **self._costs(report),
        }
        if self.engine.updates != self._updates_before:
            found["sparse_churn"] = masks.churn(self._before, self.engine.masks).total
            self._before, self._updates_before = self._copied(), self.engine.updates
        return found

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The engine's state, and what the log told last, as tensors by name and plain values."""
        state = self.engine.state_dict()
        tensors: dict[str, torch.Tensor] = {}
        layers: dict[str, Any] = {}
        for name, layer in state.pop("layers").items():
            tensors[f"{_PREFIX}/{name}/mask"], tensors[f"{_PREFIX}/{name}/explored"] = layer["mask"], layer["explored"]
            tensors[f"{_PREFIX}/{name}/told"] = pack(self._before[name])
            memory = {key: value.detach().cpu() for key, value in layer["memory"].items()}
            tensors |= {f"{_PREFIX}/{name}/memory/{key}": value for key, value in memory.items()}
            layers[name] = {"shape": layer["shape"], "counts": layer["counts"], "memory": sorted(memory)}
        return {name: value.cpu().contiguous() for name, value in tensors.items()}, {
            **state, "layers": layers, "told_updates": self._updates_before,
        }  # fmt: skip

    def restore(self, tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            ValueError: it is of another model or method, or a tensor is missing; nothing is changed then.
        """
        layers, told = {}, {}
        plain = dict(plain)
        try:
            told_updates = int(plain.pop("told_updates"))
            for name, layer in plain["layers"].items():
                memory = {key: tensors[f"{_PREFIX}/{name}/memory/{key}"] for key in layer["memory"]}
                layers[name] = {
                    "shape": layer["shape"], "counts": layer["counts"], "memory": memory,
                    "mask": tensors[f"{_PREFIX}/{name}/mask"], "explored": tensors[f"{_PREFIX}/{name}/explored"],
                }  # fmt: skip
                told[name] = unpack(tensors[f"{_PREFIX}/{name}/told"], tuple(layer["shape"]))
        except KeyError as error:
            raise ValueError(f"the training state lacks {error} of the sparse training") from error
        self.engine.load_state_dict({**plain, "layers": layers})
        self._take_stock({name: told[name].to(mask.device) for name, mask in self.engine.masks.items()}, told_updates)

    def summary(self) -> dict[str, Any]:
        """For the run's report: totals, and every layer's share of links."""
        report = self.engine.report()
        return {
            "links": report.links,
            "weights": report.size,
            "density": report.density,
            "exploration": report.exploration,
            "updates": report.updates,
            **self._costs(report),
            "layers": {layer.name: round(layer.density, 6) for layer in report.layers},
        }

    def _costs(self, report: Report) -> dict[str, float]:
        """FLOPs of one agent's prediction, dense and at the links; nothing where no training scene has an agent to predict."""
        flops = self._flops()
        if flops is None:
            return {}
        densities = {layer.name: layer.links / math.prod(layer.shape) for layer in report.layers}
        return {"dense_flops_per_agent": flops.dense, "sparse_flops_per_agent": flops.at(densities)}

    def _copied(self) -> dict[str, torch.Tensor]:
        return {name: mask.clone() for name, mask in self.engine.masks.items()}
