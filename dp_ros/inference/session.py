"""Session of a served policy: the weights, the engine, the settings and the machine that decide its commands."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from dp_ros import __version__
from dp_ros.errors import UserError
from dp_ros.inference.hardware import has_gpu
from dp_ros.policy.checkpoint_config import WEIGHTS, read_config
from dp_ros.schema import ConfigError, RuntimeConfig, parse

_FORMAT = 1
_PACKAGES = ("numpy", "torch", "openvino")


class PolicySessionError(UserError):
    """A session that cannot be read; one line."""


@dataclass(frozen=True)
class PolicySession:
    """Facts of a served policy. With the messages of the sensors and the log of its ticks, they give its commands."""

    checkpoint: str  # where it was, for people
    sha256: dict[str, str]  # file of the checkpoint -> hash
    schema_version: int  # of the checkpoint
    runtime: (
        RuntimeConfig  # engine, precision and threads are decided; the seed of the noise is `policy_seed`
    )
    is_reset_by_time: bool  # a simulated robot, see `Commander`
    machine: dict[str, str]
    version: str  # of dp_ros

    @classmethod
    def of(cls, checkpoint: str | Path, runtime: RuntimeConfig, is_reset_by_time: bool) -> PolicySession:
        """The session of a checkpoint that is served now. runtime: as `choose_engine` decided it."""
        config = read_config(checkpoint)
        return cls(
            str(checkpoint),
            {str(name): str(digest) for name, digest in config["sha256"].items()},
            int(config["schema_version"]),
            runtime,
            is_reset_by_time,
            machine(),
            __version__,
        )

    @property
    def weights_sha256(self) -> str:
        return self.sha256.get(WEIGHTS, "")

    def to_json(self) -> str:
        values = {**asdict(self), "runtime": self.runtime.model_dump(mode="json"), "format": _FORMAT}
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> PolicySession:
        """PolicySessionError where the text is no session that this version reads."""
        try:
            values: dict[str, Any] = json.loads(text)
            if values.pop("format") != _FORMAT:
                raise PolicySessionError("policy/session is of another format: install a newer dp_ros")
            runtime = parse(RuntimeConfig, values.pop("runtime"), where="policy/session")
            return cls(**values, runtime=runtime)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PolicySessionError(
                f"policy/session is none of ours ({type(error).__name__}: {error})"
            ) from None
        except ConfigError as error:
            raise PolicySessionError(f"{error}: it was recorded with another version of dp_ros") from None


def machine() -> dict[str, str]:
    """Processor, cores, GPU and versions of the engines: the last digits of a plan depend on them, too."""
    facts = {"processor": _processor(), "cores": str(len(os.sched_getaffinity(0))), "gpu": _gpu()}
    for package in _PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "none"
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _gpu() -> str:
    if not has_gpu():
        return "none"
    import torch

    return torch.cuda.get_device_name(0)
