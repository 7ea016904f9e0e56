"""Work spread over threads, in order and with bounded memory.

The kernels release the GIL, so threads help where a task is long enough to be worth handing over.  A pool lives as long
as one call: nothing survives a fork.  Inside a worker process (a DataLoader's, say) there is one thread.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from . import _checks

A = TypeVar("A")
B = TypeVar("B")

CHUNK = 32  # videos per task: milliseconds of work, where handing a task over costs some 0.05 ms


def default_threads() -> int:
    """The cores this process may use; 1 inside a worker process."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(function: Callable[[list[A]], list[B]], items: Iterable[A], num_threads: int | None) -> Iterator[B]:
    """The results of `function`, which takes a list of items, in order; a few chunks of items are in memory."""
    threads = default_threads() if num_threads is None else _checks.as_count(num_threads, "num_threads", at_least=1)
    source = iter(items)
    chunks = iter(lambda: list(islice(source, CHUNK)), [])
    parts = map(function, chunks) if threads == 1 else _over_threads(function, chunks, threads)
    return (result for part in parts for result in part)


def _over_threads(function: Callable[[A], B], items: Iterator[A], threads: int) -> Iterator[B]:
    waiting: deque[Future[B]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tal_postproc")
    try:
        waiting.extend(pool.submit(function, item) for item in islice(items, 2 * threads))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))
            yield done
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
