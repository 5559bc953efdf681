"""Open3D, imported when it is first needed and without any system package.

Open3D's wheel links against libusb-1.0, which slim Linux images lack and which `libusb-package` brings as a wheel.
"""

from __future__ import annotations

import ctypes
import importlib
from functools import cache
from pathlib import Path
from typing import Any

_REMEDY = "install it with `pip install open3d-cpu libusb-package` (Linux x86-64) or `pip install open3d libusb-package`"


def preload_libusb() -> bool:
    """Load the libusb of `libusb-package` for all later libraries; return whether there was one to load."""
    try:
        package = importlib.import_module("libusb_package")
    except ModuleNotFoundError:
        return False  # the system may have its own
    library = package.get_library_path()
    if library is None or not Path(library).exists():
        return False
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return True


@cache
def load_open3d() -> Any:
    """The `open3d` module.

    Raises:
        ImportError: Open3D or one of its system libraries is missing; the message says how to mend it.
    """
    has_libusb = preload_libusb()
    try:
        return importlib.import_module("open3d")
    except ModuleNotFoundError as error:
        if error.name != "open3d":
            raise
        raise ImportError(f"the simulator needs Open3D for its ray casting; {_REMEDY}") from error
    except ImportError as error:
        usb = "" if has_libusb else "; libusb-package, which brings libusb-1.0, is not installed"
        raise ImportError(
            f"Open3D is installed but cannot be loaded ({error}){usb}; {_REMEDY}, "
            "or as root `apt-get install libusb-1.0-0 libgl1 libegl1 libx11-6 libgomp1`"
        ) from error
