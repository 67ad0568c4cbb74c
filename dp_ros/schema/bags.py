"""Settings of recording, audit and conversion of bags."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dp_ros.schema.base import CameraName, Config
from dp_ros.schema.pictures import MAX_SIDE_PX, PictureSizes, Size
from dp_ros.schema.topics import TopicMap

Outcome = Literal["success", "failure", "discarded", "unknown"]


class RecorderConfig(Config):
    """Recorder node: one bag per episode."""

    folder: str = Field("runs/bags", description="folder of the bags; each episode becomes one in it")
    prefix: str = Field(
        "episode", pattern=r"^[A-Za-z0-9_-]+$", description="bags are called PREFIX_00000, PREFIX_00001, ..."
    )
    cameras: tuple[CameraName, ...] = Field(
        (), description="record camera/<name>/image_raw; empty: the cameras of topics_file, else gripperPOV"
    )
    image_transport: Literal["raw", "compressed"] = Field(
        "raw", description="record camera/<name>/image_raw or camera/<name>/image_raw/compressed"
    )
    topics: tuple[str, ...] = Field((), description="more topics to record, of any type")
    compression: Literal["none", "zstd"] = Field("none", description="of the chunks in the bag")
    queue_mb: float = Field(
        256.0, gt=0, le=16384, description="messages waiting for the disk [MB]; beyond it they are dropped"
    )
    min_free_mb: float = Field(
        1000.0, ge=0, description="free disk space below which no episode starts, and a running one ends [MB]"
    )
    sync_s: float = Field(
        0.25, gt=0, le=1.0, description="time between two syncs to disk, which a power failure may cost [s]"
    )
    settle_s: float = Field(
        0.25, ge=0, le=5.0, description="time for messages sent before the stop to arrive [s]"
    )
    stop_with_episode: bool = Field(False, description="episode/result ends the bag, with its success")
    task: str = Field("", description="kept with each bag where episode/task is not published")
    operator: str = Field("", description="name of the demonstrator; kept with each bag")
    note: str = Field("", description="kept with each bag; record/note replaces it for one episode")
    mode: Literal["lockstep", "realtime"] = Field(
        "realtime", description="in lockstep, no frame may hold a sample of an earlier tick"
    )
    collect: str = Field("", description="settings of a scripted collection, JSON")


class AuditConfig(Config):
    """Limits of an episode that is fit for training."""

    max_gap_s: float = Field(0.1, gt=0, description="longest time between two samples of a stream [s]")
    max_missing: float = Field(
        0.02, ge=0, le=1, description="share of samples missing at the stream's own rate"
    )
    max_late: float = Field(0.02, ge=0, le=1, description="share of samples out of order")
    max_skew_s: float = Field(
        0.05, gt=0, description="longest time from a picture to the nearest measured pose [s]"
    )
    max_latency_s: float = Field(
        0.5, gt=0, description="longest usual time from a sample's stamp to its receipt [s]"
    )
    max_turn_rad: float = Field(
        0.5,
        gt=0,
        description="angle from the measured to the commanded orientation above which is noted [rad]",
    )
    max_offset_m: float = Field(
        0.5, gt=0, description="longest distance from the measured to the commanded position [m]"
    )
    min_contrast: float = Field(
        5.0, ge=0, le=127, description="contrast below which a picture shows nothing, as for the policy node"
    )
    max_frozen_s: float = Field(
        1.0, gt=0, description="longest time that a picture or the measured pose stays the same in motion [s]"
    )
    max_leap_m: float = Field(
        0.1,
        gt=0,
        description="step of a pose above which it is noted, where it is 10 times the usual one [m]",
    )
    min_duration_s: float = Field(0.1, ge=0, description="shortest time that all streams cover [s]")


class ConvertConfig(PictureSizes):
    """Conversion of bags to a dataset."""

    rate_hz: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="control rate: one frame and one action per tick; 0: that of the slowest camera or command",
    )
    cameras: tuple[CameraName, ...] = Field((), description="empty: all that every bag has")
    width_px: int = Field(
        0, ge=0, le=MAX_SIDE_PX, description="width of the dataset's pictures; 0: as recorded"
    )
    height_px: int = Field(
        0, ge=0, le=MAX_SIDE_PX, description="height of the dataset's pictures; 0: as recorded"
    )
    max_age_s: float = Field(
        0.1, gt=0, description="oldest sample a frame may hold [s]; lockstep bags allow none"
    )
    hold_commands: bool = Field(
        False,
        description="hold a command until the next one, however old: for sources that send only changes",
    )
    as_arrived: bool = Field(
        False, description="hold the samples that had arrived by the tick, not those stamped by then"
    )
    trim_still_s: float = Field(
        0.0, ge=0, description="standing still that is kept of each longer stop [s]; 0: all of it"
    )
    outcomes: tuple[Outcome, ...] = Field(
        ("success",),
        min_length=1,
        description="outcomes to convert; a bag without a label counts as unknown",
    )
    accept_failed: bool = Field(False, description="convert also episodes that fail the audit")
    topics: TopicMap = TopicMap()
    audit: AuditConfig = AuditConfig()

    @model_validator(mode="after")
    def _whole_size(self) -> ConvertConfig:
        if (self.width_px == 0) != (self.height_px == 0):
            raise ValueError(f"size {self.width_px}x{self.height_px}: give both, or neither")
        return self

    def shared_size(self) -> Size | None:
        return (self.height_px, self.width_px) if self.height_px else None
