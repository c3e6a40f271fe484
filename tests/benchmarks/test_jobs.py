"""Jobs in processes beside. No torch here: each process reads this file."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.jobs import Finding, Job, run_all


def _fails() -> Iterator[Finding]:
    yield Finding("before", True, "")
    raise RuntimeError("no\nluck")


def _dies() -> Iterator[Finding]:
    yield Finding("before the end", True, "")
    os._exit(3)


def _lasts() -> Iterator[Finding]:
    time.sleep(600)
    yield Finding("at last", True, "")


def _reads(name: str) -> Iterator[Finding]:
    """What the process began with: torch reads some variables when it is imported."""
    began = Path("/proc/self/environ").read_text().split("\0")
    yield Finding(name, True, dict(each.split("=", 1) for each in began if each)[name])


def test_a_job_that_fails_or_dies_or_lasts_does_not_end_the_others() -> None:
    jobs = [
        Job("fails", _fails, ()),
        Job("dies", _dies, ()),
        Job("reads", _reads, ("OWN",), {"OWN": "a word"}),
        Job("lasts", _lasts, ()),
        Job("waits", _reads, ("OWN",)),
    ]
    end, found = time.monotonic() + 120, []
    for finding in run_all(jobs, 1, end):
        found.append((finding.what, finding.held, finding.text))
        if finding.what == "OWN":
            break
    assert found == [
        ("before", True, ""),
        ("fails", False, "RuntimeError: no luck"),
        ("before the end", True, ""),
        ("dies", False, "its process ended with exit code 3"),
        ("OWN", True, "a word"),
    ]
    late = [
        (finding.what, finding.held, finding.text)
        for finding in run_all(jobs[3:], 1, time.monotonic() + 1)
    ]
    assert late == [(name, None, "not measured: out of time") for name in ("lasts", "waits")]
