"""The real lerobot, in a process of its own, because its dependencies contradict ours.

python lerobot_side.py JOB_DIR: reads JOB_DIR/exported with LeRobotDataset into items.npz and facts.json, and
records numbers.npz with LeRobot's own API into JOB_DIR/videos and JOB_DIR/pictures.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

# torchvision's wheel has no compiled operators for this torch; LeRobot needs only its video reader.
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402
from lerobot.datasets.utils import dataset_to_policy_features  # noqa: E402

FPS = 80
HISTORY_S = [-1 / FPS, 0.0]


def read(job: Path) -> None:
    root = job / "exported"
    dataset = LeRobotDataset("ours/exported", root=root, video_backend="pyav")
    items = [dataset[i] for i in range(len(dataset))]
    tensors = [key for key, value in items[0].items() if isinstance(value, torch.Tensor)]
    np.savez(
        job / "items.npz", **{key: torch.stack([item[key] for item in items]).numpy() for key in tensors}
    )
    windows = LeRobotDataset(
        "ours/exported",
        root=root,
        video_backend="pyav",
        episodes=[1],
        delta_timestamps={"observation.images.left": HISTORY_S, "action": [0.0, 1 / FPS]},
    )
    window = windows[5]
    np.savez(
        job / "window.npz", **{key: window[key].numpy() for key in ("observation.images.left", "action")}
    )
    meta = dataset.meta
    facts = {
        "fps": dataset.fps,
        "episodes": dataset.num_episodes,
        "tasks": sorted({item["task"] for item in items}),
        "from": [episode["dataset_from_index"] for episode in meta.episodes],
        "to": [episode["dataset_to_index"] for episode in meta.episodes],
        "stats": {key: {k: v.tolist() for k, v in stats.items()} for key, stats in meta.stats.items()},
        "policy": {
            key: feature.type.name for key, feature in dataset_to_policy_features(dataset.features).items()
        },
    }
    (job / "facts.json").write_text(json.dumps(facts))


def record(job: Path, root: Path, use_videos: bool) -> None:
    numbers = np.load(job / "numbers.npz")
    height, width = numbers["pictures"].shape[1:3]
    features = {
        "observation.images.wrist.cam": {
            "dtype": "video" if use_videos else "image",
            "shape": (height, width, 3),
            "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (6,), "names": ["x", "y", "z", "a", "b", "jaw"]},
        "action": {"dtype": "float32", "shape": (4,), "names": None},
    }
    dataset = LeRobotDataset.create(
        "theirs/recorded", fps=20, features=features, root=root, use_videos=use_videos
    )
    start = 0
    for end in numbers["ends"]:
        for tick in range(start, end):
            dataset.add_frame(
                {
                    "observation.images.wrist.cam": numbers["pictures"][tick],
                    "observation.state": numbers["state"][tick],
                    "action": numbers["action"][tick],
                    "task": "open the drawer" if end == numbers["ends"][0] else "close it",
                }
            )
        dataset.save_episode()
        start = end
    dataset.finalize()


if __name__ == "__main__":
    job = Path(sys.argv[1])
    read(job)
    record(job, job / "videos", use_videos=True)
    record(job, job / "pictures", use_videos=False)
