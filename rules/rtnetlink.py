"""Questions to the kernel about addresses and routes, by pyroute2."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pyroute2 import IPRoute

T = TypeVar("T")


def with_routes(work: Callable[[IPRoute], T]) -> T:
    """Works in a thread: pyroute2 runs an event loop, and the caller may be in one already."""

    def open_and_work() -> T:
        with IPRoute() as routes:
            return work(routes)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(open_and_work).result()
