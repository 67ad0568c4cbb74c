"""Options that several commands share, declared once, and the readers of their values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dp_ros.cli.errors import USAGE, CliError

if TYPE_CHECKING:
    from dp_ros.schema import Config, RuntimeConfig

Model = TypeVar("Model", bound="Config")


def _check_jobs(jobs: int) -> int:
    if jobs == 0:
        raise CliError("--jobs 0: give a number of processes, or -1 for one per core", USAGE)
    return jobs


def set_option(settings: str, example: str, name: str = "--set") -> Any:
    """`--set KEY=VALUE`, which may be repeated, for the described settings."""
    text = f"Replace {settings}, e.g. {name} {example}; repeat for more."
    return typer.Option(name, metavar="KEY=VALUE", help=text)


def camera_option(verb: str, default: str) -> Any:
    """`--camera NAME`, which may be repeated; `verb` is what the command does with it."""
    return typer.Option("--camera", show_default=default, help=f"Camera to {verb}; repeat for more.")


_ONE_NUMBER = "one number is a square: 96 means 96x96"


def size_option(default: str, more: str = "") -> Any:
    """`--size WIDTHxHEIGHT`, to be read by `size_px`; `more` is said after what it is."""
    text = f"Size of the pictures in pixels, WIDTHxHEIGHT; {_ONE_NUMBER}. {more}"
    return typer.Option(metavar="WIDTHxHEIGHT", show_default=default, help=text.strip())


Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--size",
        metavar="[CAMERA=]WIDTHxHEIGHT",
        show_default="as recorded",
        help=f"Size of the pictures in pixels, of all cameras or of one; {_ONE_NUMBER}. Repeat for more. Without it, "
        "pictures stay as recorded; collect has a default of its own, 224x224.",
    ),
]
Fits = Annotated[
    list[str] | None,
    typer.Option(
        "--fit",
        metavar="[CAMERA=]same|crop|pad",
        show_default="same",
        help="Pictures of another aspect ratio than the size: same refuses them, crop keeps their centre, pad adds "
        "black; of all cameras or of one; repeat for more.",
    ),
]
Bags = Annotated[list[Path], typer.Argument(help="Bags, or folders of bags.")]
# Text, to be read by `find_checkpoint`: an empty one would be the present folder as a Path.
Checkpoint = Annotated[str, typer.Argument(help="Checkpoint or run folder, or the name of a shipped model.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the results to this file.")
]
TopicMapFile = Annotated[
    Path | None,
    typer.Option(
        "--topics-file", "--map", metavar="FILE", help="Map of the robot's topics (docs/recording.md), YAML."
    ),
]
Jobs = Annotated[int, typer.Option(callback=_check_jobs, help="Processes; -1 for one per core.")]
Cluster = Annotated[
    str, typer.Option(help="Workers of a cluster, dask:tcp://HOST:8786 or ray:ADDRESS, in place of --jobs.")
]

# Of the commands that run episodes.
Task = Annotated[str, typer.Option(show_default="the checkpoint's", help="Task of the simulated arm.")]
InstructionOption = Annotated[
    str,
    typer.Option(
        "--instruction",
        show_default="the task's sentences in turn",
        help="Sentence for a policy that is told what to do.",
    ),
]
FirstSeed = Annotated[int, typer.Option(min=0, help="Seed of the first episode; training seeds are refused.")]
PolicySeed = Annotated[int, typer.Option(min=0, help="Seed of the sampler's noise.")]
MaxSteps = Annotated[int, typer.Option(min=1, help="Time limit of an episode in ticks.")]
Sampler = Annotated[str, typer.Option(help="Sampler in place of the checkpoint's, e.g. ddim or ddpm.")]
Iterations = Annotated[
    int, typer.Option(min=0, help="Denoising iterations in place of the checkpoint's; 0: the checkpoint's.")
]
SpacingOption = Annotated[
    str,
    typer.Option("--spacing", help="Iterations it visits, in place of the checkpoint's: see the reference."),
]
WarmStart = Annotated[
    int,
    typer.Option(min=0, help="Last iterations that a plan runs from the plan before it; 0: all, from noise."),
]
EngineOption = Annotated[
    str, typer.Option("--engine", help="Engine of the inference; auto: the fastest that passes its check.")
]
Precision = Annotated[str, typer.Option(help="Precision of the inference: auto, f32 or bf16.")]
Threads = Annotated[
    int,
    typer.Option(
        min=0,
        help="CPU threads of the inference; 0: the engine's choice, or an equal share of the cores for each process. "
        "The same number gives the same actions, to the bit.",
    ),
]
LimitsFile = Annotated[
    Path | None,
    typer.Option(
        "--params",
        metavar="FILE",
        show_default="those of the schema",
        help="Parameter file whose limits of the policy node (gate.*) replace the defaults, e.g. robot.yaml.",
    ),
]


def given(**options: Any) -> dict[str, Any]:
    """The options that were typed, by the fields of their config, which has the defaults of the others."""
    return {name: value for name, value in options.items() if value is not None and value != []}


# Field of a config -> its option, where they differ by more than dashes.
_OPTIONS = {
    "cameras": "--camera", "width_px": "--size", "height_px": "--size", "rate_hz": "--rate", "outcomes": "--outcome",
    "pictures": "--size or --fit", "first_seed": "--seed", "topics": "--topics-file",
    "sampler_iterations": "--iterations", "student_iterations": "--iterations",
}  # fmt: skip


def typed_config(
    model: type[Model], options: Mapping[str, Any], assignments: Iterable[str] | None = None
) -> Model:
    """A config of options, by field, and of --set KEY=VALUE, which win. A ConfigError names each wrong option."""
    from dp_ros.schema import Layers, Source

    layers = Layers()
    for name, value in options.items():
        layers.add(name, value, Source(_OPTIONS.get(name, f"--{name.replace('_', '-')}")))
    layers.assign(assignments)
    return layers.settings(model).config


def picture_sizes(sizes: list[str] | None, fits: list[str] | None) -> dict[str, Any]:
    """Values of `Sizes` and `Fits` -> the fields of `PictureSizes` and its sizes, those that were typed."""
    settings: dict[str, Any] = {}
    pictures: dict[str, dict[str, Any]] = {}
    for camera, text in map(_of_camera, sizes or ()):
        (pictures.setdefault(camera, {}) if camera else settings).update(size_px(text))
    for camera, text in map(_of_camera, fits or ()):
        (pictures.setdefault(camera, {}) if camera else settings)["fit"] = text
    return settings | ({"pictures": pictures} if pictures else {})


def _of_camera(text: str) -> tuple[str, str]:
    """ "front=96x64" -> ("front", "96x64"); "96x64" -> ("", "96x64"), for all cameras."""
    camera, separator, value = text.rpartition("=")
    if separator and not camera:
        raise CliError(f"'{text}': the camera is missing before '='", USAGE)
    return camera, value


def size_px(text: str | None) -> dict[str, int]:
    """ "96x64" or "96" -> the fields `width_px` and `height_px`; empty where no size was typed."""
    if text is None:
        return {}
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise CliError(f"--size '{text}': give WIDTHxHEIGHT in pixels, e.g. 96x96", USAGE)
    return {"width_px": int(match[1]), "height_px": int(match[2] or match[1])}


def numbers(option: str, text: str | None, example: str, count: int = 0) -> tuple[float, ...] | None:
    """ "0,0.3" -> (0.0, 0.3), `count` numbers where it is given; None where the option was not typed."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or (count and len(values) != count):
        how_many = f"{count} numbers" if count else "numbers"
        raise CliError(f"{option} '{text}': give {how_many} with commas between, e.g. {example}", USAGE)
    return values


def lockstep_runtime(
    policy_seed: int,
    threads: int,
    sampler: str = "checkpoint",
    iterations: int = 0,
    spacing: str = "checkpoint",
    warm_start: int = 0,
    *,
    engine: str = "auto",
    precision: str = "auto",
    params_file: Path | None = None,
) -> RuntimeConfig:
    """The runtime settings of a lockstep policy; ConfigError where they are wrong, or contradict each other."""
    from dp_ros.schema import RuntimeConfig, parse
    from dp_ros.schema.base import set_dotted
    from dp_ros.schema.params_file import limits_of

    settings: dict[str, Any] = {
        "mode": "lockstep",
        "sampler": sampler,
        "sampler_iterations": iterations,
        "sampler_spacing": spacing,
        "warm_start": warm_start,
        "policy_seed": policy_seed,
        "threads": threads,
        "engine": engine,
        "precision": precision,
    }
    if params_file is None:
        return typed_config(RuntimeConfig, settings)
    typed_config(RuntimeConfig, settings)  # whose errors name the options
    for name, value in limits_of(params_file).items():
        set_dotted(settings, name, value)
    return parse(RuntimeConfig, settings, where=str(params_file))
