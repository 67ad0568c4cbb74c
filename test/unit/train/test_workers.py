"""The same call on this machine's cores and on a cluster."""

from __future__ import annotations

import operator
import os
from pathlib import Path

import numpy as np
import pytest
from joblib import delayed

from dp_ros.train.workers import ClusterError, workers

pytestmark = pytest.mark.slow
# Long enough that no worker answers all calls before the other has one; a name of our own is none to the workers.
SLOW_PID = "(__import__('time').sleep(0.2), __import__('os').getpid())[1]"
GROWN_PID = (
    f"(setattr(__import__('os'), 'kept', b'x' * 400_000_000), __import__('time').sleep(1.1), {SLOW_PID})[2]"
)


@pytest.fixture(scope="module")
def dask_cluster():
    """Two worker processes of one thread each, as `dask worker --nworkers 2 --nthreads 1` starts them."""
    distributed = pytest.importorskip("distributed", reason="pip install 'dp_ros[dask]'")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=40
    ) as cluster:
        yield f"dask:{cluster.scheduler_address}"


def test_results_come_in_the_order_of_the_calls(dask_cluster: str) -> None:
    for cluster in ("", dask_cluster):
        with workers(2, cluster) as pool:
            assert list(pool(delayed(operator.mul)(i, i) for i in range(20))) == [i * i for i in range(20)]


def test_a_cluster_s_workers_do_the_work(dask_cluster: str) -> None:
    with workers(-1, dask_cluster) as pool:
        found = set(pool(delayed(eval)(SLOW_PID) for _ in range(20)))
    assert os.getpid() not in found
    assert len(found) == 2


def test_a_process_that_grows_stays(recwarn: pytest.WarningsRecorder) -> None:
    """Loky ends one that has grown by 300 MB, a second after it has seen its size, and may lose a call with it."""
    with workers(2, batch_size=1) as pool:
        found = list(pool(delayed(eval)(what) for what in [SLOW_PID] * 4 + [GROWN_PID] * 6))
    assert len(set(found)) == 2
    assert not [each for each in recwarn if "worker stopped" in str(each.message)]


@pytest.mark.sim
def test_demonstrations_of_a_cluster_are_those_of_this_machine(dask_cluster: str, tmp_path: Path) -> None:
    from dp_ros.data import episodes
    from dp_ros.schema import CollectConfig
    from dp_ros.train.collect import collect

    config = CollectConfig(task="tiny-push", episodes=3, width_px=32, height_px=32, noise=(0.0, 0.3))
    collect(config, tmp_path / "here", jobs=1)
    collect(config, tmp_path / "cluster", cluster=dask_cluster)
    here, cluster = episodes.load(tmp_path / "here"), episodes.load(tmp_path / "cluster")
    np.testing.assert_array_equal(cluster.images["gripperPOV"], here.images["gripperPOV"])
    np.testing.assert_array_equal(cluster.action, here.action)
    assert cluster.attributes == here.attributes


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ("dask:tcp://127.0.0.1:9", "no Dask scheduler answers at 'tcp://127.0.0.1:9'"),
        ("dask:nonsense", "no Dask scheduler answers at 'nonsense'"),
        ("slurm:head", "cluster 'slurm:head': give dask:tcp://HOST:PORT"),
    ],
)
def test_a_cluster_that_is_not_there_is_named(cluster: str, says: str) -> None:
    if cluster.startswith("dask"):
        pytest.importorskip("distributed")
    with pytest.raises(ClusterError) as caught, workers(-1, cluster):
        pass
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
