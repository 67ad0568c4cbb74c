"""`dp_ros eval --on-bags`: error of a policy's actions along recorded episodes, without a simulator."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dp_ros.cli.console import ProgressLine, check_outputs, table_console
from dp_ros.cli.convert import read_map
from dp_ros.cli.errors import USAGE, CliError

if TYPE_CHECKING:
    from dp_ros.evaluation.on_bags import ErrorsAlong

_FEW = 8  # bags; the start of processes takes longer than these


def evaluate_on_bags(
    checkpoints: Sequence[str],
    sources: Sequence[Path],
    map_file: Path | None,
    policy_seed: int,
    json_path: Path | None,
) -> None:
    """Print the errors of one checkpoint along bags, or along one dataset; write them to `json_path`."""
    if len(checkpoints) > 1:
        raise CliError("--on-bags takes one checkpoint", USAGE)
    check_outputs(files=(json_path,))
    from dp_ros.evaluation.on_bags import errors_along
    from dp_ros.files import write_json
    from dp_ros.policy.checkpoint_folder import find_checkpoint

    checkpoint = find_checkpoint(checkpoints[0])
    with tempfile.TemporaryDirectory(prefix="dp_ros-") as folder:
        dataset = _dataset(sources, checkpoint, map_file, Path(folder) / "data")
        with ProgressLine("planning") as progress:
            errors = errors_along(
                checkpoint,
                dataset,
                seed=policy_seed,
                on_progress=lambda done, total: progress.update(done, "windows", total),
            )
    _show(errors)
    if json_path is not None:
        where = {"checkpoint": str(checkpoint), "on": [str(source) for source in sources]}
        write_json(json_path, where | errors.as_dict())


def _dataset(sources: Sequence[Path], checkpoint: Path, map_file: Path | None, out: Path) -> Path:
    """The dataset, where `sources` is one; else the bags converted to the rate, cameras and sizes of the checkpoint."""
    if any((source / "zarr.json").is_file() for source in sources):
        if len(sources) > 1 or map_file:
            raise CliError(
                "--on-bags takes bags, with --topics-file where they need it, or one dataset", USAGE
            )
        return sources[0]
    from dp_ros.data.bags.reader import find_bags
    from dp_ros.policy.checkpoint_config import policy_config
    from dp_ros.ros.bags.convert import convert
    from dp_ros.schema import CameraSize, ConvertConfig, TopicMap

    policy = policy_config(checkpoint)
    targets = {camera: policy.encoder.target(camera) for camera in policy.encoder.cameras}
    config = ConvertConfig(
        rate_hz=policy.rate_hz,
        cameras=policy.encoder.cameras,
        pictures={
            camera: CameraSize(width_px=target.width_px, height_px=target.height_px, fit=target.fit)
            for camera, target in targets.items()
        },
        topics=read_map(map_file) if map_file else TopicMap(),
        outcomes=("success", "unknown"),
    )
    jobs = -1 if len(find_bags(sources)) > _FEW else 1
    with ProgressLine("converting") as progress:
        result = convert(
            sources,
            out,
            config,
            jobs=jobs,
            on_progress=lambda what, done, of: progress.update(done, what, of),
        )
    for path, why in result.refused:
        print(f"refused {path}: {why}")
    return out


def _show(errors: ErrorsAlong) -> None:
    from rich.table import Table

    table = Table(
        "after the frame", "executed", "position", "95 %", "standing still", "gripper", title_justify="left"
    )
    for row in errors.of_steps():
        table.add_row(
            f"{row['after_s'] * 1e3:.0f} ms",
            "yes" if row["executed"] else "",
            *(f"{row[name] * 1e3:.2f} mm" for name in ("position_m", "position_p95_m", "still_m")),
            f"{row['gripper']:.3f}",
        )
    table_console().print(table)
    table = Table("episode", "windows", "position", "standing still", "gripper")
    for row in errors.of_episodes():
        distances = (f"{row[name] * 1e3:.2f} mm" for name in ("position_m", "still_m"))
        table.add_row(row["name"], str(row["windows"]), *distances, f"{row['gripper']:.3f}")
    table_console().print(table)
    means = errors.means()
    print(
        f"executed actions: {means['position_m'] * 1e3:.2f} mm (standing still: {means['still_m'] * 1e3:.2f} mm), "
        f"gripper {means['gripper']:.3f} of 2"
    )
