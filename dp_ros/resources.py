"""Where the installed files (config/, launch/, models/) are: the package's share folder, or the checkout."""

from __future__ import annotations

import sys
from pathlib import Path


def share_dir() -> Path:
    """The folder that holds `config/`, `launch/` and `models/`.

    A source checkout wins, so that an edited preset is the one that runs; then the ament share folder of
    the environment this Python belongs to, and of the prefix the package was installed under.
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
    raise FileNotFoundError(
        f"the share folder of dp_ros was not found beside {package} nor under {sys.prefix}: "
        "install the package with `pip install .` or `colcon build`"
    )


def share_file(relative: str) -> Path:
    """One installed file, e.g. `share_file("config/train/cpu.yaml")`; FileNotFoundError names what is missing."""
    path = share_dir() / relative
    if not path.exists():
        raise FileNotFoundError(f"{relative} is not in {share_dir()}: reinstall dp_ros")
    return path
