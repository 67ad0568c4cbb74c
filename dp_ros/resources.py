"""Location of the installed files (config/, launch/, models/): the package's share folder, or the checkout."""

from __future__ import annotations

import sys
from pathlib import Path

from dp_ros.errors import UserError


class InstallError(UserError):
    """A file that an installed dp_ros has is missing; one line that says how to install it."""


def share_dir() -> Path:
    """The folder that holds `config/`, `launch/` and `models/`; InstallError where there is none.

    A source checkout comes first, so that an edited preset is used. Then come the share folder of this Python's
    environment and that of the prefix the package is installed under.
    """
    package = Path(__file__).resolve().parent
    checkout = package.parent
    if (checkout / "package.xml").is_file():
        return checkout
    prefixes = [Path(sys.prefix), *package.parents]
    for prefix in prefixes:
        share = prefix / "share" / "dp_ros"
        if (share / "package.xml").is_file():
            return share
    raise InstallError(
        f"the share folder of dp_ros is neither beside {package} nor under {sys.prefix}: "
        "install the package with `pip install .` or `colcon build`"
    )


def share_file(relative: str) -> Path:
    """One installed file, e.g. `share_file("config/train/cpu.yaml")`; InstallError where it is missing."""
    path = share_dir() / relative
    if not path.exists():
        raise InstallError(f"{relative} is not in {share_dir()}: reinstall dp_ros")
    return path
