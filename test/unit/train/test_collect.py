"""Collection of several tasks into one dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dp_ros.data.episodes import DatasetError, load
from dp_ros.schema import CollectConfig
from dp_ros.sim.arm import TaskError, find_tasks
from dp_ros.train.collect import collect

TASKS = ("tiny-push", "tiny-push-tilt30")
pytestmark = pytest.mark.sim


def config(episodes: int = 2, max_steps: int = 100) -> CollectConfig:
    return CollectConfig(
        task=TASKS[0], episodes=episodes, width_px=16, height_px=16, max_steps=max_steps, keep_steps=0
    )


def test_interrupted_collection_continues_to_the_same_dataset(tmp_path: Path) -> None:
    whole = collect(config(), tmp_path / "whole", jobs=1, tasks=TASKS)
    assert whole == dict.fromkeys(TASKS, (2, 2))

    def stop(task: str, kept: int, tried: int) -> None:
        if (task, kept) == (TASKS[1], 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(config(), tmp_path / "cut", 1, stop, tasks=TASKS)
    with pytest.raises(DatasetError, match="is unfinished"):
        load(tmp_path / "cut")
    assert collect(config(), tmp_path / "cut", jobs=1, tasks=TASKS) == whole
    one, other = load(tmp_path / "whole"), load(tmp_path / "cut")
    assert (one.tasks, one.task_of_episode.tolist()) == (TASKS, [0, 0, 1, 1])
    assert (one.tasks, one.attributes) == (other.tasks, other.attributes)
    np.testing.assert_array_equal(one.images["gripperPOV"], other.images["gripperPOV"])
    np.testing.assert_array_equal(one.action, other.action)


def test_a_task_is_added_to_a_finished_dataset(tmp_path: Path) -> None:
    collect(config(1), tmp_path / "d", jobs=1)
    collect(config(1), tmp_path / "d", jobs=1, tasks=TASKS[1:])
    assert load(tmp_path / "d").tasks == TASKS


def test_a_dataset_is_not_finished_while_another_task_is_begun(tmp_path: Path) -> None:
    def stop(task: str, kept: int, tried: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(config(), tmp_path / "d", 1, stop)
    with pytest.raises(
        DatasetError, match=r"tiny-push was begun and has fewer than 2 episodes: add it to --task"
    ):
        collect(config(), tmp_path / "d", jobs=1, tasks=TASKS[1:])
    with pytest.raises(DatasetError, match="is unfinished"):
        load(tmp_path / "d")


def test_tasks_whose_expert_fails_are_named_and_do_not_stop_the_others(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"the expert of tiny-push, tiny-push-tilt30 failed 20 times"):
        collect(config(1, max_steps=3), tmp_path / "d", jobs=1, tasks=TASKS)


def test_groups_and_lists_of_tasks() -> None:
    assert find_tasks("tiny-push,drawer-open") == ("tiny-push", "drawer-open-v3")
    everything = find_tasks("all")
    assert len(everything) == 50
    assert set(find_tasks("easy,medium,hard,very_hard")) == set(everything)
    assert len(find_tasks("mt10")) == 10
    with pytest.raises(TaskError, match="names push-v3 twice"):
        find_tasks("mt10,push")
    with pytest.raises(TaskError, match="did you mean 'drawer-open-v3'"):
        find_tasks("tiny-push,drawer-opn")
