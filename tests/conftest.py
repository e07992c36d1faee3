"""What every test shares: which tests can run here, how hypothesis draws, where the cases are.

Plain `pytest` needs neither root nor network: what needs root skips and says so. Property tests
draw the same examples in every run; HYPOTHESIS_PROFILE=explore makes them look further.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.docker.engine import why_not

ROOT = Path(__file__).resolve().parent.parent
CASES = Path(os.environ.get("SIPNAT_CASES", ROOT.parent / "shared" / "cases"))

settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {}
    if os.geteuid() != 0:
        reasons["netns"] = "needs root: makes network namespaces (sudo ./dev test)"
    if any("docker" in item.keywords for item in items) and (reason := why_not()):
        reasons["docker"] = f"needs Docker: {reason}"
    for item in items:
        for mark, reason in reasons.items():
            if mark in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def cases() -> Path:
    """Returns the folder of real messages by others, or skips where there is none."""
    if not CASES.is_dir():
        pytest.skip(f"no messages by others at {CASES}; SIPNAT_CASES names their folder")
    return CASES
