"""Values of a config from files and options, each with its source, which errors name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import yaml

from dp_ros.documents import parse_yaml, parse_yaml_lines, read_text
from dp_ros.schema.base import ConfigError, Model, leaves, parse, set_dotted


@dataclass(frozen=True)
class Source:
    """Place at which a value was given."""

    place: str  # "--set policy.rate_hz=10", or a file
    line: int | None = None
    is_default: bool = False  # a preset's value, which gives way to a dataset's

    def __str__(self) -> str:
        return self.place if self.line is None else f"{self.place}: line {self.line}"

    @property
    def short(self) -> str:
        """The place, and of a preset only its name."""
        return Path(self.place).name if self.is_default else self.place


@dataclass(frozen=True)
class Settings(Generic[Model]):
    """A valid config, and the source of each value that is not the default of its model, by dotted key."""

    config: Model
    sources: Mapping[str, Source]

    @classmethod
    def of(cls, config: Model, place: str) -> Settings[Model]:
        """Settings of which every value was given at `place`."""
        return cls(config, {key: Source(place) for key, _ in leaves(config.model_dump())})

    def is_given(self, key: str) -> bool:
        """Whether a user gave the value, rather than a preset or the model."""
        return key in self.sources and not self.sources[key].is_default

    def source(self, key: str) -> str:
        return str(self.sources.get(key, "default"))


@dataclass
class Layers:
    """Values from several sources, one after another; later ones replace earlier ones."""

    data: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings[Any]) -> Layers:
        """Layers to add to, on the values of `settings`."""
        return cls(settings.config.model_dump(), dict(settings.sources))

    def add(self, key: str, value: Any, source: Source) -> None:
        """Set a dotted key; a mapping replaces all keys below it."""
        parts = key.split(".")
        above = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
        for other in [k for k in self.sources if k in above or k.startswith(f"{key}.")]:
            del self.sources[other]
        set_dotted(self.data, key, value)
        for leaf, _ in leaves({key: value}):
            self.sources[leaf] = source

    def add_file(self, path: str | Path, *, is_default: bool = False) -> None:
        """The values of a YAML file. ConfigError where it cannot be read."""
        path = Path(path)
        try:
            data, root = parse_yaml_lines(read_text(path))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise ConfigError(f"{path}: is not YAML ({error})") from None
        if data is None:
            return
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: expected `key: value` lines, found a {type(data).__name__}")
        lines = dict(_lines(root))
        for key, value in data.items():
            self.data[key] = value
        for leaf, _ in leaves(data):
            self.sources[leaf] = Source(str(path), lines.get(leaf), is_default)

    def assign(self, texts: Iterable[str] | None, option: str = "--set") -> None:
        """The values of repeated options KEY=VALUE; ConfigError where one is not of this form."""
        for text in texts or ():
            key, value = parse_assignment(text)
            self.add(key, value, Source(f"{option} {text}"))

    def settings(self, model: type[Model]) -> Settings[Model]:
        """ConfigError lists every error, each with the source of the value."""
        return Settings(parse(model, self.data, where="", place=self._place), self.sources)

    def _place(self, key: str, message: str) -> str:
        """Source of the value of a dotted key; of an error about several values, the sources of those it may mean."""
        parts = key.split(".")
        for length in range(len(parts), 0, -1):
            if source := self.sources.get(".".join(parts[:length])):
                return str(source)
        below = {k: s for k, s in self.sources.items() if not key or k.startswith(f"{key}.")}
        words = set(message.replace("'", " ").replace(":", " ").split())
        meant = {k: s for k, s in below.items() if words & set(k.split("."))} or below
        if len(meant) == 1:
            return str(*meant.values())
        options = [s.place for s in meant.values() if s.place.startswith("--")]
        others = [s.place for s in meant.values() if not s.place.startswith("--")]
        return " and ".join(dict.fromkeys([*options, *others])) or "default"


def load_yaml(model: type[Model], path: str | Path, overrides: Mapping[str, Any] | None = None) -> Model:
    """Read a config from YAML; `overrides` maps dotted keys ("policy.task") to values that replace the file's.

    ConfigError names the file, the line and the key.
    """
    layers = Layers()
    layers.add_file(path)
    for key, value in (overrides or {}).items():
        layers.add(key, value, Source(f"override {key}={value}"))
    return layers.settings(model).config


def parse_assignment(text: str) -> tuple[str, Any]:
    """ "policy.unet.groups=4" -> ("policy.unet.groups", 4); the value is YAML."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"'{text}' is not KEY=VALUE, e.g. batch_size=32")
    try:
        return key.strip(), parse_yaml(value)
    except ValueError:
        raise ConfigError(f"'{text}': the value is not YAML") from None


def _lines(node: Any, prefix: str = "") -> Iterable[tuple[str, int]]:
    """(dotted key, line) of every key below a mapping node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            yield name, key.start_mark.line + 1
            yield from _lines(value, f"{name}.")
