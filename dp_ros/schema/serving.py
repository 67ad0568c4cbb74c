"""Settings of serving: the policy and the simulated robot as nodes. They never change the meaning of the weights."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from dp_ros.schema.base import CameraName, Config
from dp_ros.schema.gate import GateConfig
from dp_ros.schema.gripper import GripperState
from dp_ros.schema.policy import SamplerName, Spacing


class RuntimeConfig(GripperState):
    """Serving of a policy: timing, sampler and limits. None of them changes the meaning of the weights."""

    mode: Literal["lockstep", "realtime"] = Field(
        "realtime", description="lockstep: one command per observation, with its stamp; realtime: own clock"
    )
    shadow: bool = Field(
        False,
        description="realtime: plan and judge, and publish the commands on policy/shadow/ee_pose and "
        "policy/shadow/gripper in place of the robot's topics; each plan begins where the arm is measured",
    )
    engine: str = Field(
        "auto",
        description="engine that computes the plans: auto, torch, openvino or cuda. auto: the fastest here that agrees "
        "with the reference",
    )
    precision: Literal["auto", "f32", "bf16"] = Field(
        "auto",
        description="precision of the inference; auto: bf16 where processor or GPU has it and the actions stay close "
        "to the reference's, else f32",
    )
    sampler: Literal["checkpoint", SamplerName] = Field("checkpoint", description="override the sampler")
    sampler_iterations: int = Field(
        0, ge=0, le=1000, description="override its iterations; 0: the checkpoint's"
    )
    sampler_spacing: Literal["checkpoint", Spacing] = Field(
        "checkpoint", description="override the spacing of the iterations it visits"
    )
    warm_start: int = Field(
        0,
        ge=0,
        le=999,
        description="number of last iterations that a plan runs from the previous plan with noise added; 0: it starts "
        "from noise and runs all",
    )
    continuity: Literal["auto", "switch", "shift", "ensemble", "inpaint"] = Field(
        "auto",
        description="transition to a new chunk. switch: at once; shift: moved to continue from the last command; "
        "ensemble: gradually, over the actions that both have; inpaint: the actions that are executed before the plan "
        "arrives are given to it; auto: ensemble in real time, switch in lockstep, where no plan is late",
    )
    policy_seed: int = Field(0, ge=0, description="seed of the sampler's noise, restarted in each episode")
    image_transport: Literal["raw", "compressed"] = Field(
        "raw", description="subscribe to camera/<name>/image_raw or to camera/<name>/image_raw/compressed"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the policy runs; auto: a GPU if any"
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="CPU threads of the inference; 0: in lockstep one for each core, in real time for half of them, "
        "because the node's callbacks and the cameras need the rest",
    )
    episode_gap_s: float = Field(
        0.5, gt=0, description="frames further apart than this begin a new episode [s]"
    )
    command_delay_s: float = Field(
        0.0,
        ge=0,
        le=5,
        description="extra action latency of the robot, compared with the demonstrations; rounded to ticks [s]",
    )
    command_rate_hz: float = Field(
        0.0,
        ge=0,
        le=2000,
        description="realtime: rate of the commands, along a smooth curve through the policy's actions; rounded to a "
        "multiple of the policy's rate; 0: the policy's rate [Hz]",
    )
    realtime_priority: int = Field(
        10,
        ge=0,
        le=99,
        description="realtime: priority (SCHED_RR) of the thread that sends the commands, where the system allows it; "
        "0: an ordinary thread",
    )
    heartbeat_hz: float = Field(
        50.0,
        ge=0,
        le=1000,
        description="realtime: rate of policy/heartbeat while the node is active, for a watchdog; 0: none [Hz]",
    )
    min_contrast: float = Field(
        5.0,
        ge=0,
        le=127,
        description="least standard deviation of a colour in a picture (of 255); below it the camera is covered "
        "and the frame lost; 0: never",
    )
    spread_samples: int = Field(
        0,
        ge=0,
        le=32,
        description="further samples of each plan, drawn as its spread in policy/markers and policy/image while "
        "somebody looks; each costs the denoising of a plan, and the next plan waits for at most one; 0: none",
    )
    ood_warning: float = Field(
        1.0,
        ge=0,
        description="warn while the pictures of two plans in a row are unlike those of the training by a higher score: "
        "see gate.max_ood_score, which holds; 0: never",
    )
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _shadow_in_realtime(self) -> RuntimeConfig:
        if self.shadow and self.mode == "lockstep":
            raise ValueError(
                "shadow goes with mode realtime: in lockstep the simulated arm waits for commands"
            )
        return self

    @property
    def transition(self) -> str:
        """`continuity`, with `auto` replaced by what it means in this mode."""
        if self.shadow:  # the arm has not followed the chunk before
            return "switch"
        if self.continuity != "auto":
            return self.continuity
        return "ensemble" if self.mode == "realtime" else "switch"


class BridgeConfig(Config):
    """The simulated robot as a node: its task, its cameras, its episodes and its clock."""

    changes_at_run_time: ClassVar[bool | tuple[str, ...]] = ("task",)

    task: str = Field(
        "drawer-open-v3",
        description="task of any simulator; a version may be left out; a change is of the next episode",
    )
    cameras: tuple[CameraName, ...] = Field(
        ("gripperPOV",), min_length=1, description="each is published as camera/<name>/image_raw"
    )
    width_px: int = Field(96, ge=16, le=640, description="width of their pictures")
    height_px: int = Field(96, ge=16, le=480, description="height of their pictures")
    markers: bool = Field(False, description="draw goals and other marks of the simulator")
    mode: Literal["lockstep", "realtime"] = Field(
        "lockstep",
        description="lockstep: one step for each command; realtime: the arm steps on its own clock",
    )
    first_seed: int = Field(
        0, ge=0, description="seed of the first episode; each episode takes the next number"
    )
    max_steps: int = Field(200, ge=1, le=100_000, description="time limit of an episode [ticks]")
    spectator: str = Field(
        "",
        description="camera for people, published at 480x480; auto: the simulator's own; empty: none",
    )
    spectator_hz: float = Field(
        10.0,
        gt=0,
        le=100,
        description="realtime: most pictures of the spectator in a second, drawn beside the simulation [Hz]",
    )
    auto_reset: bool = Field(False, description="begin episodes one after another, without episode/reset")
    command_timeout_s: float = Field(
        5.0, gt=0, description="lockstep: fail the episode when no command comes [s]"
    )
    command_max_age_s: float = Field(
        0.25, gt=0, description="realtime: hold when the newest command is older [s]"
    )
    command_delay_s: float = Field(
        0.0,
        ge=0,
        le=5,
        description="realtime: latency of the arm, from the stamp of a command until it moves; a command on its way "
        "for less is never late. The policy must know it as its own command_delay_s [s]",
    )

    expert: bool = Field(False, description="the scripted expert commands the arm, over the command topics")
    noise: tuple[float, ...] = Field(
        (0.0,),
        min_length=1,
        description="expert: std of the noise on the executed move, in longest moves of one tick; episode i uses entry "
        "i modulo their number",
    )
    keep_steps: int = Field(0, ge=0, le=100_000, description="ticks that an episode continues after success")
    follow_recorder: bool = Field(
        False, description="the end of a recorded episode (record/command) begins the next episode"
    )
    min_readers: int = Field(
        0, ge=0, le=16, description="lockstep: subscribers of each observation before an episode may begin"
    )
