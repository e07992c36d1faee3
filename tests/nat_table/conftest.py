"""A new table for each test of it."""

import pytest

from nat_table.table import NatTable
from tests.nat_table.phones import new_table


@pytest.fixture
def table() -> NatTable:
    return new_table()
