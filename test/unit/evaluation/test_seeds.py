"""Seeds that a policy has seen are refused, however its demonstrations were made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dp_ros.data.episodes import Dataset
from dp_ros.evaluation.seeds import check_unseen, seeds_known
from dp_ros.schema import ConfigError
from dp_ros.train.run import provenance

TASK = "drawer-open-v3"


def training(make_dataset: Callable[..., Dataset], seeds: list[int], **collect: Any) -> dict[str, Any]:
    """The `training` of a checkpoint whose dataset has one episode for each seed."""
    dataset = make_dataset(lengths=(2,) * len(seeds))
    attributes = {"collect": {"task": TASK, **collect}, "tried": len(seeds)}
    return provenance(replace(dataset, seed=np.array(seeds), attributes=attributes), {})


def test_seeds_of_teleoperated_episodes_are_refused(make_dataset: Callable[..., Dataset]) -> None:
    """`collect` of a dataset made of bags names no first seed: all seeds passed as unseen."""
    config = {"training": training(make_dataset, [3, 0, 1, 1, 7])}
    assert config["training"]["data"]["seeds"] == [[0, 1], [3, 3], [7, 7]]
    for seeds, trained in ((range(0, 50), "0 to 1"), (range(3, 4), "3 to 3"), (range(5, 8), "7 to 7")):
        with pytest.raises(ConfigError, match=f"overlap the training seeds {trained}: choose another --seed"):
            check_unseen(config, TASK, seeds)
    check_unseen(config, TASK, range(4, 7))
    check_unseen(config, TASK, range(8, 50))
    check_unseen(config, "reach-v3", range(50))
    check_unseen(config, TASK, [])


def test_seeds_that_were_tried_and_not_kept_are_refused_too(make_dataset: Callable[..., Dataset]) -> None:
    """The choice of the kept ones may have depended on them."""
    made = training(make_dataset, [100, 102], first_seed=100)
    made["data"]["tried"] = 4
    with pytest.raises(ConfigError, match="100 to 103"):
        check_unseen({"training": made}, TASK, [103])
    check_unseen({"training": made}, TASK, range(100))


def test_checkpoints_that_keep_no_seeds_are_judged_by_what_they_keep() -> None:
    of_a_count = {"training": {"data": {"first_seed": 10, "tried": 5}}}
    check_unseen(of_a_count, TASK, [9, 15])
    with pytest.raises(ConfigError, match="10 to 14"):
        check_unseen(of_a_count, TASK, [14])
    with pytest.raises(ConfigError, match="10 and above"):
        check_unseen({"training": {"data": {"first_seed": 10}}}, TASK, [1000])
    check_unseen({}, TASK, [0])
    assert not seeds_known({}, TASK)


def test_seeds_that_only_the_teacher_of_a_student_saw_are_refused() -> None:
    own, teachers = {"first_seed": 100, "tried": 5}, {"first_seed": 0, "tried": 50}
    made = {"data": own, "teacher": {"data": teachers}}
    for seed, trained in ((102, "100 to 104"), (49, "0 to 49")):
        with pytest.raises(ConfigError, match=trained):
            check_unseen({"training": made}, TASK, [seed])
    check_unseen({"training": made}, TASK, [50])
    assert seeds_known(made, TASK)
    assert not seeds_known({**made, "teacher": {"data": {}}}, TASK)


def test_seeds_that_only_the_weights_saw_that_it_began_with_are_refused() -> None:
    """A fine-tuned policy, whose first weights were fine-tuned, too."""
    first = {"data": {"tasks": [TASK, "other"], "first_seed": 0, "tried": 50}}
    made = {
        "data": {"first_seed": 100, "tried": 5},
        "init": {"data": {"first_seed": 200, "tried": 5}, "init": first},
    }
    for seed, trained in ((102, "100 to 104"), (202, "200 to 204"), (49, "0 to 49")):
        with pytest.raises(ConfigError, match=trained):
            check_unseen({"training": made}, TASK, [seed])
    check_unseen({"training": made}, TASK, [50])
    assert seeds_known(made, TASK)


def test_episodes_without_a_seed_are_counted(make_dataset: Callable[..., Dataset]) -> None:
    made = training(make_dataset, [-1, 4, -1])
    assert (made["data"]["seeds"], made["data"]["seeds_unknown"]) == ([[4, 4]], 2)
    assert not seeds_known(made, TASK)
    assert seeds_known(training(make_dataset, [4]), TASK)
    assert not seeds_known(training(make_dataset, [-1]), TASK)


def test_dataset_in_memory_without_seeds_says_nothing_of_them(make_dataset: Callable[..., Dataset]) -> None:
    assert "seeds" not in provenance(make_dataset(), {})["data"]
