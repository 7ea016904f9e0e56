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

CHUNK = 8  # videos per task: several milliseconds of work, where handing over costs some 0.05 ms


def default_threads() -> int:
    """The cores this process may use; 1 inside a worker process."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(function: Callable[[A], B], items: Iterable[A], num_threads: int | None) -> Iterator[B]:
    """``map(function, items)`` over threads: results in order, at most a few chunks of items in memory."""
    threads = default_threads() if num_threads is None else _checks.as_count(num_threads, "num_threads", at_least=1)
    return map(function, items) if threads == 1 else _over_threads(function, items, threads)


def _over_threads(function: Callable[[A], B], items: Iterable[A], threads: int) -> Iterator[B]:
    source = iter(items)
    waiting: deque[Future[list[B]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tal_postproc")

    def submit() -> bool:
        chunk = list(islice(source, CHUNK))
        if chunk:
            waiting.append(pool.submit(lambda: [function(item) for item in chunk]))
        return bool(chunk)

    try:
        while len(waiting) < 2 * threads and submit():
            pass
        while waiting:
            done = waiting.popleft().result()
            submit()
            yield from done
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
