"""`limtr doctor`: which versions are here, which devices, what is missing, and what to type about it."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from limtr.run_report import package_versions
from preprocessing.open3d_loader import load_open3d

MIN_PYTHON = (3, 11)
MIN_FREE_GIB = 5.0
MIN_SHM_GIB = 0.5
INSTALL = "python -m pip install -c constraints.txt -e ."


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Options of `limtr doctor`."""

    data: Path = Path(".")
    """Folder whose free disk space is looked at."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at: `problem` is empty if all is well."""

    what: str
    seen: str
    problem: str = ""
    remedy: str = ""


def check_python() -> Finding:
    """The interpreter's version."""
    seen = platform.python_version()
    if sys.version_info[:2] >= MIN_PYTHON:
        return Finding(what="python", seen=seen)
    needed = ".".join(map(str, MIN_PYTHON))
    return Finding(what="python", seen=seen, problem=f"older than {needed}", remedy=f"install Python {needed} or newer")


def check_import(module: str, remedy: str = INSTALL) -> Finding:
    """Whether a module really imports: a package can be present and its system library not."""
    try:
        loaded = importlib.import_module(module)
    except (ImportError, OSError) as error:
        return Finding(what=module, seen="does not import", problem=str(error).splitlines()[0], remedy=remedy)
    return Finding(what=module, seen=str(getattr(loaded, "__version__", "ok")))


def check_open3d() -> Finding:
    """Open3D, which wants libusb-1.0: the wheel `libusb-package` carries it."""
    try:
        return Finding(what="open3d", seen=str(getattr(load_open3d(), "__version__", "ok")))
    except (ImportError, OSError) as error:
        return Finding(what="open3d", seen="does not import", problem=str(error).splitlines()[0],
                       remedy=f"{INSTALL}; on bare systems also libegl1, libgl1, libx11-6 and libgomp1")  # fmt: skip


def check_device() -> Finding:
    """Where models will run."""
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding(what="device", seen=f"CUDA {torch.version.cuda}: {names}")
    threads = torch.get_num_threads()
    return Finding(what="device", seen=f"CPU, {os.cpu_count()} cores, {threads} torch threads (no CUDA device: fine, slower)")


def check_space(folder: Path) -> Finding:
    """Free disk space where data would go."""
    free_gib = shutil.disk_usage(folder).free / 2**30
    seen = f"{free_gib:.1f} GiB free in {folder.resolve()}"
    if free_gib >= MIN_FREE_GIB:
        return Finding(what="disk", seen=seen)
    return Finding(what="disk", seen=seen, problem=f"less than {MIN_FREE_GIB:.0f} GiB", remedy="choose --out on a larger disk")


def check_shared_memory() -> Finding:
    """Ray's object store lives in /dev/shm where that exists."""
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return Finding(what="shared memory", seen="no /dev/shm (Ray uses the temporary folder)")
    free_gib = shutil.disk_usage(shm).free / 2**30
    if free_gib >= MIN_SHM_GIB:
        return Finding(what="shared memory", seen=f"{free_gib:.1f} GiB free in /dev/shm")
    return Finding(what="shared memory", seen=f"{free_gib:.2f} GiB free in /dev/shm", problem="too little for Ray",
                   remedy="in Docker: --shm-size=2g; or --executor local")  # fmt: skip


def findings(config: DoctorConfig) -> list[Finding]:
    """Everything that is looked at, in the order it is printed."""
    modules = ("numpy", "tensorflow_datasets", "array_record.python.array_record_module", "ray", "google.protobuf", "crc32c",
               "sklearn", "pyarrow", "safetensors", "matplotlib", "tensorboardX", "tyro", "rich")  # fmt: skip
    return [check_python(), *(check_import(name) for name in modules), check_open3d(), check_device(),
            check_space(config.data), check_shared_memory()]  # fmt: skip


def run(config: DoctorConfig) -> int:
    """Print what was found; 0 if nothing is missing."""
    if not config.data.is_dir():
        raise ValueError(f"--data {config.data}: no such folder; name one whose disk space should be looked at")
    print("versions: " + ", ".join(f"{name} {version}" for name, version in package_versions().items()))
    found = findings(config)
    for item in found:
        print(f"{'ok  ' if not item.problem else 'FAIL'} {item.what:<42} {item.seen}")
        if item.problem:
            print(f"     {item.problem}\n     remedy: {item.remedy}")
    problems = sum(bool(item.problem) for item in found)
    print("nothing is missing" if not problems else f"{problems} problem(s)")
    return 1 if problems else 0
