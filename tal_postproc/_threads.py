"""Work spread over threads, in order and with bounded memory.

The kernels release the GIL, so threads help where a task is long enough to be worth handing over.  A pool lives as long
as one call: nothing survives a fork.  Inside a worker process (a DataLoader's, say) there is one thread.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from . import _checks

A = TypeVar("A")
B = TypeVar("B")

CHUNK = 64  # items per task at most: milliseconds of work, where handing a task over costs some 0.05 ms
BUDGET = 1 << 22  # bytes per task, by what the caller says an item weighs


def default_threads() -> int:
    """The cores this process may use; 1 inside a worker process."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[list[A]], list[B]], items: Iterable[A], num_threads: int | None, weigh: Callable[[A], int]
) -> Generator[B, None, None]:
    """The results of `function`, which takes a list of items, in order; two tasks per thread are in memory."""
    threads = default_threads() if num_threads is None else _checks.as_count(num_threads, "num_threads", at_least=1)
    tasks = _tasks(items, weigh)
    return _flat(map(function, tasks) if threads == 1 else _over_threads(function, tasks, threads))


def _flat(parts: Iterator[list[B]]) -> Generator[B, None, None]:
    """The results of all parts.  The threads end with it, also when a traceback keeps its frame alive."""
    try:
        for part in parts:
            yield from part
    finally:
        if isinstance(parts, Generator):
            parts.close()


def _tasks(items: Iterable[A], weigh: Callable[[A], int]) -> Iterator[list[A]]:
    """Items in lists of a size worth a task; what a broken source gave before it broke still makes one."""
    task: list[A] = []
    weight = 0
    try:
        for item in items:
            task.append(item)
            weight += weigh(item)
            if len(task) == CHUNK or weight >= BUDGET:
                yield task
                task, weight = [], 0
    except Exception:
        if task:
            yield task
        raise
    if task:
        yield task


def _over_threads(function: Callable[[A], B], items: Iterator[A], threads: int) -> Iterator[B]:
    waiting: deque[Future[B]] = deque()
    broken: list[Exception] = []  # what the source raised: told after the results of what it gave before
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tal_postproc")

    def submit(count: int) -> None:
        try:
            if not broken:
                waiting.extend(pool.submit(function, item) for item in islice(items, count))
        except Exception as error:
            broken.append(error)

    try:
        submit(2 * threads)
        while waiting:
            done = waiting.popleft().result()
            submit(1)
            yield done
        if broken:
            raise broken[0]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
