"""The folder of a checkpoint, found by the words that every command, launch file and node takes for it."""

from __future__ import annotations

import difflib
from pathlib import Path

from dp_ros.errors import UserError
from dp_ros.resources import InstallError, share_dir

CONFIG = "config.json"
OF_RUN = "checkpoint"  # the subfolder of a run that is served
_BEST, _STATE = "best", "state.safetensors"  # of a run, too
_WEIGHTS = "policy.safetensors"
_WANTED = (
    "give the folder of a checkpoint, the folder of a run of `dp_ros train`, or the name of a shipped model"
)
_BAG_FILES = (".mcap", ".db3")


class CheckpointError(UserError):
    """A checkpoint cannot be used; the message is one line: where, what, and what to do."""


def find_checkpoint(name: str | Path) -> Path:
    """The folder of the checkpoint that `name` means.

    `name` is the checkpoint's folder, the run folder it is in, or a shipped model, with or without `models/` before
    it; `~` is the home folder. A folder comes before a shipped model. CheckpointError says what `name` is instead, or
    what was looked for and the nearest shipped models.
    """
    path = expanded(name)
    for folder in (path, path / OF_RUN):
        if is_checkpoint(folder):
            return folder
    shipped = _shipped().get(_model(path))
    if shipped is not None and not path.exists():
        return shipped
    also = f"; the shipped model of that name is {shipped}" if shipped is not None else ""
    raise CheckpointError(f"{path}: {why_not(path)}{also}")


def expanded(name: str | Path) -> Path:
    """`name` as a path, `~` expanded. CheckpointError where it is empty or names no home folder."""
    text = str(name)
    if not text.strip():
        raise CheckpointError(f"checkpoint is empty: {_WANTED}: {', '.join(_shipped())}")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise CheckpointError(f"{text}: that user has no home folder: write the path without ~") from None


def is_checkpoint(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and not _is_foreign(folder)


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder of checkpoints and runs, by name."""
    members = sorted(folder.iterdir()) if folder.is_dir() else []
    found = ([each for each in (member, member / OF_RUN) if is_checkpoint(each)] for member in members)
    return [each[0] for each in found if each]


def name_of(checkpoint: str | Path) -> str:
    """Name of a checkpoint: its folder's; for RUN/checkpoint "RUN", for RUN/best "RUN-best"."""
    path = Path(checkpoint).absolute()
    if path.name == OF_RUN:
        return path.parent.name
    return f"{path.parent.name}-{_BEST}" if path.name == _BEST else path.name


def why_not(path: Path) -> str:
    """Reason why `path` is neither a checkpoint nor a run that has one, and what to do; without the path."""
    if not path.exists():
        return (
            f"does not exist and is no shipped model, so it is not a checkpoint: looked for {path.absolute()} "
            f"with {CONFIG} or {OF_RUN}/{CONFIG} in it; {_nearest(path)}"
        )
    what, remedy = kind_of(path)
    return f"is {what if 'checkpoint' in what else f'{what}, not a checkpoint'}: {remedy}"


def kind_of(path: Path) -> tuple[str, str]:
    """(kind, remedy) of what is there instead of a checkpoint."""
    return _file(path) if path.is_file() else _folder(path)


def _file(path: Path) -> tuple[str, str]:
    if path.suffix in _BAG_FILES:
        return "a file of a bag", _WANTED
    if is_checkpoint(path.parent):
        return "a file of a checkpoint", f"give its folder, {path.parent}"
    return "a file", _WANTED


def _folder(path: Path) -> tuple[str, str]:
    if (path / "zarr.json").is_file():
        return "a zarr dataset", f"train with `dp_ros train --data {path} --out RUN`, then give RUN"
    if _is_bag(path):
        return (
            "a bag",
            "`dp_ros convert` makes a dataset of it, `dp_ros train` a run, which can be given here",
        )
    if (path / "meta" / "info.json").is_file():
        return (
            "a LeRobot dataset",
            "`dp_ros import` and `dp_ros train` make a run of it, which can be given here",
        )
    if (path / _WEIGHTS).is_file():
        return f"a checkpoint that has no {CONFIG}", "copy the checkpoint again"
    if _is_foreign(path):
        return "a policy of another project", f"dp_ros runs its own: {_WANTED}"
    if is_checkpoint(path / _BEST):
        return "a run without its newest checkpoint", f"give {path / _BEST}"
    if (path / _STATE).is_file():
        return "a run that has saved no checkpoint yet", "train on with `dp_ros train --resume`"
    if found := checkpoints_in(path):
        names = ", ".join(str(path / each.relative_to(path).parts[0]) for each in found[:3])
        return "a folder of checkpoints", f"give one of them: {names}{', ...' if len(found) > 3 else ''}"
    members = sorted(path.iterdir())
    if any(_is_bag(member) for member in members):
        return "a folder of bags", "`dp_ros convert` makes a dataset of them, `dp_ros train` a run"
    what = f"a folder that has no {CONFIG}" if members else "an empty folder"
    return what, _WANTED


def _is_bag(path: Path) -> bool:
    return path.is_dir() and (
        (path / "metadata.yaml").is_file() or any(p.suffix in _BAG_FILES for p in path.iterdir())
    )


def _is_foreign(folder: Path) -> bool:
    """Whether a policy of LeRobot or of Hugging Face is there: it has a config.json, too."""
    return (folder / "model.safetensors").is_file() and not (folder / _WEIGHTS).is_file()


def _nearest(path: Path) -> str:
    names = list(_shipped())
    if not names:
        return "this installation has no shipped models"
    begun = [name for name in names if path.name and name.startswith(path.name)]
    near = begun or difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"shipped are {', '.join(names)}"


def _model(path: Path) -> str:
    """The name of a shipped model that `path` may be; empty where it is another path."""
    parts = path.parts
    return parts[-1] if len(parts) == 1 or (len(parts) == 2 and parts[0] == "models") else ""


def _shipped() -> dict[str, Path]:
    """The shipped models by name."""
    try:
        return {folder.name: folder for folder in checkpoints_in(share_dir() / "models")}
    except InstallError:
        return {}
