"""Pools of processes by joblib: the cores of this machine, or a Dask or Ray cluster."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from joblib import Parallel, parallel_config

from dp_ros.errors import UserError

# A full disk or Ctrl-C stops the workers in the middle of their work, as it should.
warnings.filterwarnings("ignore", message=r"\d+ tasks (have been|which were)")


# A process that ends by itself can take a call with it that has just arrived. So they end with this one, not because
# they are idle or have grown.
_IDLE_S = 24 * 3600


class ClusterError(UserError):
    """A cluster that cannot be used; one line that says what to install or start."""


def _stay() -> None:
    """In a process of the pool: do not end because its memory has grown by 300 MB, which loky takes for a leak.

    A policy and a simulator take more.
    """
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize


@contextmanager
def workers(
    jobs: int = -1, cluster: str = "", *, batch_size: int | str = "auto", return_as: str = "generator"
) -> Iterator[Parallel]:
    """A pool whose results come in the order of the calls: `for r in pool(delayed(f)(x) for x in xs)`.

    `jobs` processes here (-1: one per core), or `cluster`: "dask:tcp://HOST:8786" or "ray:ADDRESS" ("ray:auto",
    "ray:local"). The cluster's workers need dp_ros and the same paths of files. Each needs a single thread, because a
    simulator draws on the thread that made it: `dask worker --nworkers N --nthreads 1 ADDRESS`. ClusterError.
    batch_size and return_as: joblib's, of processes here.
    """
    if not cluster:
        lasting = parallel_config(backend="loky", idle_worker_timeout=_IDLE_S, initializer=_stay)
        with lasting, Parallel(n_jobs=jobs, return_as=return_as, batch_size=batch_size) as pool:
            yield pool
        return
    kind, _, address = cluster.partition(":")
    if kind == "dask":
        with _dask(address), Parallel(n_jobs=jobs, return_as="generator") as pool:
            yield pool
    elif kind == "ray":
        with _ray(address):
            # joblib's Ray backend hands results over as a list, not one by one.
            yield Parallel(n_jobs=jobs)
    else:
        raise ClusterError(f"cluster '{cluster}': give dask:tcp://HOST:PORT or ray:ADDRESS")


@contextmanager
def _dask(address: str) -> Iterator[None]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(f"dask.distributed is missing ({error}): pip install 'dp_ros[dask]'") from None
    try:
        client = Client(address, timeout="5s", set_as_default=True)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at '{address}' ({' '.join(str(error).split())[:120]}): start `dask scheduler`"
        ) from None
    with client:
        if not client.scheduler_info()["workers"]:
            raise ClusterError(
                f"the Dask scheduler at {address} has no workers: start `dask worker --nthreads 1 {address}`"
            )
        with parallel_config(backend="dask"):
            yield


@contextmanager
def _ray(address: str) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise ClusterError(f"ray is missing ({error}): pip install 'dp_ros[ray]'") from None
    try:
        ray.init(None if address == "local" else address, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise ClusterError(
            f"no Ray cluster at '{address}' ({' '.join(str(error).split())[:120]}): start `ray start --head`, or "
            "give ray:local"
        ) from None
    register_ray()
    try:
        with parallel_config(backend="ray"):
            yield
    finally:
        ray.shutdown()
