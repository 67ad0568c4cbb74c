"""LeRobot's `DiffusionModel` in the sizes of a dp_ros policy, and a copy of the policy's weights to it.

LeRobot lies beside the venv's packages (`make lerobot`), because its requirements contradict ours. Importing it puts
that folder first in the path, so it is for a process of its own.

The two architectures are the same function, up to the order of columns: LeRobot's spatial softmax gives x and y of
each keypoint in turn, dp_ros all x, then all y; LeRobot's frame is state, then features, and dp_ros's the reverse.
dp_ros maps pictures from [0, 1] to [-1, 1] and normalises the state and the actions inside of the policy, LeRobot
outside of the model.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from dp_ros.actions import STATE_DIM
from dp_ros.cli.errors import CliError
from dp_ros.schema import PolicyConfig

Array32 = NDArray[np.float32]

# Names in dp_ros -> names in LeRobot, applied one after the other.
_RENAMED = (
    (r"^encoder\.cameras\.0\.", "rgb_encoder."),
    (r"\.pool\.to_keypoints\.", ".pool.nets."),
    (r"\.project\.", ".out."),
    (r"^network\.embed_step\.mlp\.0\.", "unet.diffusion_step_encoder.1."),
    (r"^network\.embed_step\.mlp\.2\.", "unet.diffusion_step_encoder.3."),
    (r"^network\.(down|up)\.", r"unet.\1_modules."),
    (r"^network\.middle\.", "unet.mid_modules."),
    (r"^network\.(down|up)sample\.(\d+)\.", r"unet.\1_modules.\2.2."),
    (r"^network\.out\.0\.", "unet.final_conv.0.block."),
    (r"^network\.out\.1\.", "unet.final_conv.1."),
    (r"\.first\.", ".conv1.block."),
    (r"\.second\.", ".conv2.block."),
    (r"\.film\.", ".cond_encoder."),
    (r"\.skip\.", ".residual_conv."),
)

_libraries: list[Any] = []  # a Library undoes its definitions when collected


def find_overlay() -> Path:
    """The folder that holds LeRobot; CliError where it is missing."""
    overlay = Path(sys.prefix) / "lerobot"
    if not (overlay / "lerobot").is_dir():
        raise CliError("LeRobot is not installed beside this venv: run `make lerobot`")
    return overlay


def make_lerobot_model(overlay: Path, policy: PolicyConfig, **settings: Any) -> Any:
    """LeRobot's `DiffusionModel` of the sizes in `policy`, which has a U-Net. settings: of its DiffusionConfig."""
    sys.path.insert(0, str(overlay))
    import torch

    library = torch.library.Library("torchvision", "DEF")  # the overlay's wheel was built for another torch
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchvision's decoders, which nobody calls here
            from lerobot.configs.types import FeatureType, PolicyFeature
            from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
            from lerobot.policies.diffusion.modeling_diffusion import DiffusionModel
    except ModuleNotFoundError as error:
        raise CliError(f"{error}: run `make lerobot` again") from None

    encoder, horizons = policy.encoder, policy.horizons
    picture = (3, encoder.height_px, encoder.width_px)
    inputs = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, picture) for c in encoder.cameras}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (STATE_DIM,))
    return DiffusionModel(
        DiffusionConfig(
            n_obs_steps=horizons.T_o,
            horizon=horizons.T_p,
            drop_n_last_frames=0,
            input_features=inputs,
            output_features={"action": PolicyFeature(FeatureType.ACTION, (policy.action.dim,))},
            crop_shape=(encoder.crop_height_px, encoder.crop_width_px),
            spatial_softmax_num_keypoints=encoder.keypoints,
            use_separate_rgb_encoder_per_camera=not encoder.share_weights,
            down_dims=policy.unet.channels,
            kernel_size=policy.unet.kernel_size,
            n_groups=policy.unet.groups,
            diffusion_step_embed_dim=policy.unet.step_embedding_dim,
            **{"n_action_steps": horizons.T_a, "device": "cpu"} | settings,
        )
    )


def load_weights(model: Any, weights_file: Path, policy: PolicyConfig) -> None:
    """Copy the weights of a policy to LeRobot's model, one by one: a second copy of a large model may not fit.

    For one camera with `share_weights`, `proprioception`, feature_dim = 2 * keypoints, and a softmax temperature of 1:
    what LeRobot's model has. ValueError where a weight has no counterpart.
    """
    import torch

    missing = dict(model.named_parameters())
    with safe_open(weights_file, framework="np") as file, torch.no_grad():
        for name in file.keys():  # noqa: SIM118, the file is no dict
            value = file.get_tensor(name)
            if name.endswith("pool.temperature"):
                if value != 1.0:
                    raise ValueError("LeRobot's spatial softmax has no temperature")
                continue
            theirs = _renamed(name)
            if theirs not in missing:
                raise ValueError(f"LeRobot's model has no {theirs}, the counterpart of {name}")
            missing.pop(theirs).copy_(torch.from_numpy(_reordered(name, value, policy)))
    if missing:
        raise ValueError(f"no weight for LeRobot's {', '.join(missing)}")


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _reordered(name: str, value: Array32, policy: PolicyConfig) -> Array32:
    """The weight with its columns in LeRobot's order."""
    if name.endswith("project.weight"):  # all x, then all y -> x and y of each keypoint
        value = value.reshape(len(value), 2, -1).swapaxes(1, 2).reshape(value.shape)
    if name.endswith("film.1.weight"):
        value = _state_first(value, policy)
    return np.ascontiguousarray(value)


def _state_first(film: Array32, policy: PolicyConfig) -> Array32:
    """FiLM's columns: step, then of each frame (features, state) -> step, then of each frame (state, features)."""
    T_o, features = policy.horizons.T_o, policy.encoder.feature_dim
    step, obs = np.split(film, [film.shape[1] - T_o * (features + STATE_DIM)], axis=1)
    frames = obs.reshape(len(film), T_o, features + STATE_DIM)
    return np.concatenate([step, np.roll(frames, STATE_DIM, axis=2).reshape(len(film), -1)], axis=1)
