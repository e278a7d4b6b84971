"""What a piece of work takes in memory at its most."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable

MIB = 1 << 20
MOST = 3 << 30  # so that work which takes all there is fails by itself


def most_memory(work: Callable[[], object]) -> int:
    """Does the work in a copy of this process. Returns by how many bytes the copy grew at its most.

    raises: what the work raises; MemoryError where it asks for more than 3 GiB
    """
    mine, its = multiprocessing.Pipe(duplex=False)
    copy = multiprocessing.get_context("fork").Process(target=_measure, args=(work, its))
    copy.start()
    its.close()
    result = mine.recv()
    copy.join()
    if isinstance(result, Exception):
        raise result
    return result


def _measure(work: Callable[[], object], answer):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/statm") as f:
        held = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MOST, held + MOST))
    try:
        work()
        answer.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
    except Exception as error:
        answer.send(error)
