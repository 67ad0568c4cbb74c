"""Settings of the live view: a page on this machine, and a server for Foxglove."""

from __future__ import annotations

from pydantic import Field

from dp_ros.schema.base import CameraName, Config


class WatchConfig(Config):
    """The live view of a robot and its policy. It commands nothing."""

    page: bool = Field(
        True, description="serve a page for a browser at http://127.0.0.1:page_port, to this machine only"
    )
    page_port: int = Field(
        8766, ge=0, le=65535, description="port of the page; 0, or one that is taken: a free one"
    )
    foxglove: bool = Field(False, description="serve the topics to Foxglove; needs foxglove-sdk")
    foxglove_port: int = Field(
        8765, ge=0, le=65535, description="port for Foxglove; 0, or one that is taken: a free one"
    )
    foxglove_host: str = Field(
        "127.0.0.1",
        description="address to serve Foxglove at; 0.0.0.0: to every machine that reaches this one, without a password",
    )
    rate_hz: float = Field(
        20.0, ge=1, le=100, description="messages are taken so often; of pictures only the newest [Hz]"
    )
    cameras: tuple[CameraName, ...] = Field(
        (),
        max_length=16,
        description="cameras of the page; empty: those that publish camera/<name>/image_raw",
    )
