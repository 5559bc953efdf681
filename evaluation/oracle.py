"""The oracle environment: Waymo's own code, in a Python of its own, asked through files by scripts in `oracle_scripts`."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

ORACLE_VARIABLE = "LIMTR_ORACLE"
"""Environment variable that names another folder of the environment."""
EXPECTED = {"waymo-open-dataset-tf-2-12-0": "1.6.7", "tensorflow": "2.13.0"}
"""Versions that were tested; other wheels have other metrics (bucket rules, headings)."""
REMEDY = "build it with `make oracle` (Python 3.11, 2.8 GB, some minutes)"
TIMEOUT_S = 3600.0

_SCRIPTS = Path(__file__).parent / "oracle_scripts"
_ASK_VERSIONS = (
    "import sys\n"
    "from importlib import metadata\n"
    "installed = {item.metadata['Name']: item.version for item in metadata.distributions()}\n"
    "print('\\n'.join(installed.get(name, 'none') for name in sys.argv[1:]))\n"
)


class OracleError(ValueError):
    """The oracle environment is missing, of another version, or its process died; the message names the remedy."""


def oracle_folder() -> Path:
    """Where the environment is: `$LIMTR_ORACLE`, or `.venv-oracle` of this checkout, or of the working folder."""
    named = os.environ.get(ORACLE_VARIABLE)
    if named:
        return Path(named)
    of_checkout = Path(__file__).parents[1] / ".venv-oracle"
    return of_checkout if of_checkout.exists() else Path(".venv-oracle")


def find_oracle() -> Path:
    """The environment's interpreter, after its versions were looked at.

    Raises:
        OracleError: there is none, or it has other versions than `EXPECTED`.
    """
    folder = oracle_folder()
    python = folder / "bin" / "python"
    if not python.exists():
        raise OracleError(f"no oracle environment in {folder}: {REMEDY}, or name its folder in {ORACLE_VARIABLE}")
    # Isolated (-I), so that no PYTHONPATH of ours reaches an interpreter with other versions of everything.
    answer = _run([str(python), "-I", "-c", _ASK_VERSIONS, *EXPECTED], timeout_s=60.0, what=f"{python}")
    seen = dict(zip(EXPECTED, answer.split(), strict=True))
    wrong = [f"{name} {seen[name]} (expected {version})" for name, version in EXPECTED.items() if seen[name] != version]
    if wrong:
        raise OracleError(f"the oracle environment in {folder} has {', '.join(wrong)}: remove the folder and {REMEDY}")
    return python


def ask_oracle(script: str, *arguments: Path, timeout_s: float = TIMEOUT_S) -> None:
    """Run one of `oracle_scripts` in the environment; it reads and writes the files that `arguments` name.

    Raises:
        OracleError: the environment cannot be used, or the script failed, was killed or took longer than `timeout_s`.
    """
    python = find_oracle()
    command = [str(python), "-I", str(_SCRIPTS / script), *(str(path.absolute()) for path in arguments)]
    _run(command, timeout_s=timeout_s, what=f"Waymo's code ({script})")


def _run(command: list[str], *, timeout_s: float, what: str) -> str:
    """Standard output of a command that ends well."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, **quiet},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OracleError(f"{what} did not finish within {timeout_s:.0f} s; give it fewer scenes") from error
    except OSError as error:
        raise OracleError(f"{what} cannot be started ({error}): remove the folder and {REMEDY}") from error
    if result.returncode != 0:
        raise OracleError(f"{what} {_ending(result.returncode)}: {_last_words(result.stderr)}")
    return result.stdout


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    hint = " (its checks abort the process)" if name == "SIGABRT" else " (out of memory?)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def _last_words(errors: str, most: int = 3) -> str:
    """The lines that say what happened: failed checks, or else the last ones."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    checks = [line for line in lines if "Check failed" in line]
    return " | ".join((checks or lines)[-most:]) or "it said nothing"
