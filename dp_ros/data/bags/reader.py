"""Reader of bags: rosbag2 folders and single files, MCAP or sqlite3, as serialized messages.

A bag's `custom` data holds what is not in its messages: task, seed, outcome, operator and a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, get_args

import zstandard
from mcap.reader import make_reader
from rosbags.rosbag2 import ReaderError

from dp_ros.data.bags.storage import StorageReader
from dp_ros.documents import parse_yaml, read_text
from dp_ros.errors import UserError, shown
from dp_ros.files import unreadable
from dp_ros.schema.bags import Outcome

METADATA_RECORD = "dp_ros"  # the MCAP metadata that keeps `custom` when metadata.yaml is lost or made again
OUTCOMES: tuple[str, ...] = get_args(Outcome)
_FILES = (".mcap", ".db3")
_COMPRESSED = ".zstd"  # of files that `ros2 bag record --compression-mode file` has compressed
_ZSTD = b"\x28\xb5\x2f\xfd"
CDR = b"\0"  # first byte of a serialized message


class BagError(UserError):
    """A bag that cannot be used; one line: the bag, the fault and the remedy."""


@dataclass(frozen=True)
class BagInfo:
    """Facts of a bag that are known without reading its messages."""

    path: Path
    start_ns: int  # receive times
    duration_s: float
    messages: int
    topics: Mapping[str, tuple[str, int]]  # name -> (type, messages); several types are joined by "and"
    custom: Mapping[str, str] = field(default_factory=dict)
    publishers: Mapping[str, int] = field(default_factory=dict)  # topic -> how many, where the bag tells

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def outcome(self) -> str:
        """One of OUTCOMES; empty where the bag has no label."""
        return self.custom.get("outcome", "")


class BagReader:
    """Info and messages of one bag: `with BagReader(path) as bag:`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reader = _open(self.path)
        try:
            self.info = self._read_info()
        except BagError:
            raise
        except Exception as error:  # damaged files raise many kinds
            with suppress(Exception):  # what the damaged parts made of it
                self.close()
            raise BagError(f"{self.path}: is damaged ({_reason(error)}); {repair_hint(self.path)}") from None

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._reader.is_open:
            self._reader.close()

    def _read_info(self) -> BagInfo:
        reader = self._reader
        return BagInfo(
            self.path,
            int(reader.start_time) if reader.message_count else 0,
            reader.duration / 1e9,
            int(reader.message_count),
            {
                str(name): (" and ".join(sorted(reader.types(name))), int(topic.msgcount))
                for name, topic in reader.topics.items()
            },
            self._custom(),
            {str(name): reader.publishers(name) for name in reader.topics},
        )

    def messages(self, topics: Iterable[str]) -> Iterator[tuple[str, int, bytes]]:
        """(topic, receive time [ns], serialized message) of the topics, in the order of their receive times.

        BagError where the bag is damaged, and at the end where it had fewer messages than it counts.
        """
        wanted = set(topics)
        expected, found = sum(self.info.topics[topic][1] for topic in wanted & set(self.info.topics)), 0
        try:
            for topic, received_ns, data in self._reader.messages_on(wanted):
                found += 1
                yield topic, received_ns, plain_message(bytes(data), self.path)
        except BagError:
            raise
        except Exception as error:  # damaged files raise many kinds
            raise BagError(f"{self.path}: is damaged ({_reason(error)}); {repair_hint(self.path)}") from None
        if found < expected:
            raise BagError(
                f"{self.path}: counts {expected} messages, and {found} can be read; {repair_hint(self.path)}"
            )

    def is_plain(self) -> bool:
        """Whether ROS messages are stored as sent, not compressed one by one (`--compression-mode message`)."""
        messages = self._reader.messages_on(self._reader.ros_topics)
        return all(data[:1] == CDR for _, _, data in messages)

    def _custom(self) -> dict[str, str]:
        """From metadata.yaml; where that has no label, from the .mcap files, too."""
        if self.path.is_file():
            custom, files = _custom_beside(self.path), [self.path]
        else:
            custom = dict(getattr(self._reader.storage.metadata, "custom", None) or {})
            files = storage_files(self.path)
        if "outcome" not in custom:
            for file in files:
                custom = {**_custom_inside(file), **custom}
        return {str(key): str(value) for key, value in custom.items()}


def plain_message(data: bytes, path: Path) -> bytes:
    """A serialized message, decompressed where metadata.yaml no longer says that messages are compressed."""
    if data[: len(_ZSTD)] != _ZSTD:
        return data
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError as error:
        raise BagError(f"{path}: a compressed message is damaged ({error})") from None


def find_bags(paths: Iterable[str | Path]) -> list[Path]:
    """The bags at the paths or directly below them, those of a folder in the natural order of their names.

    BagError for a path that holds none. Hidden folders are left out.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise BagError(f"{path}: does not exist")
        if path.is_file() and path.suffix == _COMPRESSED:
            raise BagError(f"{path}: is compressed; give the folder it is in")
        bags = [path] if is_bag(path) else sorted((p for p in _folders(path) if is_bag(p)), key=_natural)
        if not bags:
            raise BagError(f"{path}: holds no bag (a folder with metadata.yaml, .mcap or .db3 files)")
        known = {bag.resolve() for bag in found}
        found += [bag for bag in bags if bag.resolve() not in known]
    return found


def is_bag(path: Path) -> bool:
    """Whether the path is a bag folder, or a single file of one."""
    if path.is_file():
        return path.suffix in _FILES
    if not path.is_dir():  # e.g. a dangling link
        return False
    return (path / "metadata.yaml").is_file() or bool(storage_files(path) or compressed_files(path))


def storage_files(bag: Path) -> list[Path]:
    """The files that hold a bag folder's messages."""
    return _visible(bag, _FILES)


def compressed_files(bag: Path) -> list[Path]:
    """The storage files of a bag folder that are compressed as a whole."""
    return _visible(bag, tuple(suffix + _COMPRESSED for suffix in _FILES))


def read_metadata(bag: Path) -> dict[str, Any]:
    """metadata.yaml's `rosbag2_bagfile_information`; BagError where it cannot be read."""
    try:
        return dict(parse_yaml(read_text(bag / "metadata.yaml"))["rosbag2_bagfile_information"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BagError(
            f"{bag}: metadata.yaml cannot be read ({_reason(error)}); {repair_hint(bag)}"
        ) from None


def check_inside(bag: Path) -> None:
    """BagError where metadata.yaml cannot be read, or names a file outside of the bag's folder."""
    names = read_metadata(bag).get("relative_file_paths")
    if not isinstance(names, list):
        raise BagError(f"{bag}: metadata.yaml lists no files; {repair_hint(bag)}")
    for name in names:
        path = PurePosixPath(str(name))
        if path.is_absolute() or ".." in path.parts:
            raise BagError(
                f"{bag}: metadata.yaml names the file '{shown(name)}' outside of the bag: remove it there"
            )


def _open(path: Path) -> StorageReader:
    if not path.exists():
        raise BagError(f"{path}: does not exist")
    if not is_bag(path):
        raise BagError(f"{path}: is no bag (a folder with metadata.yaml, or a .mcap or .db3 file)")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        raise BagError(f"{path}: was not closed (it has no metadata.yaml); {repair_hint(path)}")
    if path.is_dir():
        if odd := unreadable(path):
            raise BagError(f"{odd}: is no file; copy the bag again")
        check_inside(path)
    try:
        reader = StorageReader(path)
        reader.open()
    except Exception as error:  # damaged files raise many kinds
        raise BagError(f"{path}: cannot be opened ({_reason(error)}); {repair_hint(path)}") from None
    return reader


def _custom_beside(file: Path) -> dict[str, Any]:
    """Custom data from metadata.yaml beside a single file; empty where there is none."""
    try:
        return dict(read_metadata(file.parent).get("custom_data") or {})
    except BagError:
        return {}


def _custom_inside(file: Path) -> dict[str, Any]:
    """Custom data that our recorder wrote into an MCAP file; the last value of a key counts."""
    if file.suffix != ".mcap":
        return {}
    try:
        with file.open("rb") as stream:
            records = list(make_reader(stream).iter_metadata())
    except Exception as error:  # damaged files raise many kinds
        raise BagError(f"{file.parent}: {file.name} is damaged ({_reason(error)})") from None
    return {k: v for record in records if record.name == METADATA_RECORD for k, v in record.metadata.items()}


def repair_hint(path: Path) -> str:
    """Advice for a damaged bag."""
    if path.is_dir() and any(file.suffix == ".db3" for file in storage_files(path)):
        return f"try `ros2 bag reindex {path}`"
    if path.is_dir() and any(file.name.endswith(".db3" + _COMPRESSED) for file in compressed_files(path)):
        return f"decompress its files with `zstd -d`, then try `ros2 bag reindex {path}`"
    return f"run `dp_ros bag repair {path}`"


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:160] if isinstance(error, ReaderError) and text else f"{type(error).__name__}: {text}"[:160]


def _visible(bag: Path, suffixes: tuple[str, ...]) -> list[Path]:
    found = (p for p in bag.iterdir() if p.name.endswith(suffixes) and not p.name.startswith("."))
    return sorted(found, key=_natural)


def _folders(path: Path) -> list[Path]:
    return [p for p in path.iterdir() if not p.name.startswith(".")] if path.is_dir() else []


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorting key that puts episode_2 before episode_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
