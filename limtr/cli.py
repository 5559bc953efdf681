"""The front door: `limtr VERB`. Each verb is a configuration dataclass and a `run` function in the room that owns it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Verb:
    """Where a verb lives: `module.config` is its options, `module.run(options)` does it and returns the exit status."""

    module: str
    config: str
    summary: str
    run: str = "run"


VERBS: dict[str, Verb] = {
    "demo": Verb("limtr.demo", "DemoConfig", "the whole road on simulated scenes: records, shards, training, metrics"),
    "synthesize": Verb("preprocessing.synthetic.writer", "SynthesizeConfig", "simulate scenes and write them as WOMD does"),
    "preprocess": Verb("preprocessing.pipeline", "PreprocessConfig", "WOMD records to shards, on Ray or in process"),
    "intentions": Verb("preprocessing.intentions", "IntentionsConfig", "k-means intention points of the training split"),
    "train": Verb("training.train", "TrainConfig", "train a predictor on shards"),
    "compare": Verb("evaluation.compare", "CompareConfig", "trainings over seeds, their differences with intervals"),
    "predict": Verb("evaluation.predict", "PredictConfig", "predictions of scenarios as one Parquet file"),
    "evaluate": Verb("evaluation.evaluate", "EvaluateConfig", "Waymo's metrics beside two baselines, with pictures"),
    "view": Verb("evaluation.view.command", "ViewConfig", "one scene as picture, animation, window or Rerun recording"),
    "submit": Verb("evaluation.submit", "SubmitConfig", "predictions as a challenge submission, checked before upload"),
    "export": Verb("evaluation.export", "ExportConfig", "a checkpoint as one graph, ONNX or torch.export"),
    "tune-nms": Verb("evaluation.tune_nms", "TuneNmsConfig", "search the NMS distance of each class"),
    "benchmark latency": Verb("evaluation.latency", "LatencyConfig", "time, memory and FLOPs of predicting, in every way"),
    "verify model": Verb("limtr.verify_model", "VerifyModelConfig", "compare the model with a golden file"),
    "verify features": Verb("preprocessing.verify_features", "VerifyFeaturesConfig", "compare agent-centric features"),
    "verify crops": Verb("preprocessing.verify_crops", "VerifyCropsConfig", "compare LiDAR crops of predicted tracks"),
    "verify lidar": Verb("preprocessing.verify_lidar", "VerifyLidarConfig", "compare decoded LiDAR points"),
    "verify --official": Verb("evaluation.verify_official", "VerifyOfficialConfig", "LiDAR and protos by Waymo's own decoders"),
    "verify shards": Verb(
        "preprocessing.verify_shards", "VerifyShardsConfig", "read every scene of shards, compare all counts"
    ),
    "verify metrics": Verb("evaluation.verify_metrics", "VerifyMetricsConfig", "compare with Waymo's official metrics"),
    "doctor": Verb("preprocessing.doctor", "DoctorConfig", "versions, devices, what is missing and its remedy"),
}


def options_of(name: str) -> Any:
    """The dataclass of a verb's options, for whoever starts that verb with options of their own."""
    verb = VERBS[name]
    return getattr(import_module(verb.module), verb.config)


def usage() -> str:
    """The list of verbs."""
    lines = ["usage: limtr VERB [options]     (limtr VERB --help lists the options)", ""]
    lines += [f"  {name:<18} {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(lines)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show the project's warnings as one line, without the place in the code that a user can do nothing about."""
    before = warnings.formatwarning

    def one_line(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        if category is UserWarning:
            return f"limtr: warning: {message}\n"
        return before(message, category, filename, lineno, line)

    warnings.formatwarning = one_line
    try:
        yield
    finally:
        warnings.formatwarning = before


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return its exit status.

    0 only if the work is whole, 1 on failure, 2 on wrong usage, 130 if interrupted, 141 if whoever read the output left.
    """
    try:
        with plain_warnings():
            try:
                return run_verb(list(sys.argv[1:] if arguments is None else arguments))
            finally:
                sys.stdout.flush()
    except BrokenPipeError:
        # `limtr VERB --help | head`: the rest of the output goes nowhere, the interpreter's last flush included.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def run_verb(words: list[str]) -> int:
    """As `main`, from a list of words."""
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    # Two-word verbs ("verify model") come before their one-word prefix would.
    name = " ".join(words[:2]) if " ".join(words[:2]) in VERBS else words[0]
    verb = VERBS.get(name)
    if verb is None:
        print(f"limtr: no verb {' '.join(words[:2])!r}\n\n{usage()}", file=sys.stderr)
        return 0 if {"-h", "--help"} & set(words[:2]) else 2
    import tyro

    module = import_module(verb.module)
    options = words[len(name.split()) :]
    config: Any = tyro.cli(getattr(module, verb.config), args=options, prog=f"limtr {name}", description=verb.summary)
    run: Callable[[Any], int] = getattr(module, verb.run)
    try:
        return run(config)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        print(
            f"limtr: interrupted; run the same command again to go on{' (with --resume)' if name == 'train' else ''}",
            file=sys.stderr,
        )
        return 130
    except (ValueError, OSError) as error:
        # What a person can mend comes as a sentence; anything else keeps its traceback.
        print(f"limtr {name}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
