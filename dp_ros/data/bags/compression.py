"""Files that `ros2 bag record --compression-mode file` compressed before it was killed: as plain files again.

A closed bag is read as it is. Without metadata.yaml nobody knows which files belong to it, and the last one is plain.
"""

from __future__ import annotations

from pathlib import Path

import zstandard

from dp_ros.data.bags.reader import BagError, compressed_files
from dp_ros.files import replacing

_BLOCK_BYTES = 1 << 20


def decompress_files(bag: Path) -> list[Path]:
    """Write the plain file of each compressed one that has none; the compressed files that are not needed any more.

    A compressed file that is cut off gives the plain bytes it has, and stays. BagError where the disk is too small.
    """
    unneeded = []
    for file in compressed_files(bag):
        plain = file.with_suffix("")
        if plain.exists():  # it was being compressed when the recorder was killed
            continue
        try:
            if _decompress(file, plain):
                unneeded.append(file)
        except OSError as error:
            raise BagError(
                f"{bag}: {file.name} cannot be decompressed ({error.strerror or error}); it is left as it was"
            ) from None
    return unneeded


def _decompress(file: Path, plain: Path) -> bool:
    """Whether the file was whole."""
    stream = zstandard.ZstdDecompressor().decompressobj()
    with replacing(plain) as staging, file.open("rb") as source, staging.open("wb") as target:
        while not stream.eof and (block := source.read(_BLOCK_BYTES)):
            try:
                target.write(stream.decompress(block))
            except zstandard.ZstdError:
                break
    return stream.eof
