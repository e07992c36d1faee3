"""Phones of the crowd that have calls, and sipnat with their mappings from the start.

They are none of those that the load of signalling plays.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import msgspec

from nat_table.endpoint import Endpoint
from nat_table.table import NatTable
from tests.bench.loaded import NEVER, save
from tests.bench.peers.box import Sipnat
from tests.bench.peers.sipload import scratch
from tests.bench.peers.stage import Stage
from tests.bench.table import PER_HOST, bind_call, new_table
from tests.lab.network import SERVER


def phone(number: int) -> str:
    """Returns the address of a phone, of at most 38,500."""
    return f"10.1.{100 + number // 250}.{number % 250 + 1}"


def crowded(mappings: int) -> NatTable:
    """Returns a table with so many mappings, those of a call for each phone."""
    table = new_table()
    remotes = (Endpoint(SERVER, 5060),)
    for number in range(mappings // PER_HOST):
        host = phone(number)
        for binding in bind_call(table, host, f"{number:032x}@{host}", 0.0, remotes):
            table.refresh(binding, table.pinholes(binding)[0].owner, NEVER)
    table.take_changes()
    return table


@functools.cache
def store_of(mappings: int) -> Path:
    """Returns the store that a gateway with a crowded table would leave."""
    path = scratch() / f"{mappings}.db"
    save(crowded(mappings), str(path))
    return path


def loaded(stage: Stage, mappings: int) -> Sipnat:
    """Starts sipnat with so many mappings; raises RuntimeError where it has lost some."""
    store = store_of(mappings)
    box = Sipnat(stage, lambda path: shutil.copy(store, path))
    try:
        (status,) = msgspec.json.decode(box.gateway.ask("status", "--json"))
        if status["mappings"] != mappings:
            raise RuntimeError(
                f"sipnat has taken over {status['mappings']} mappings, not {mappings}"
            )
    except BaseException:
        box.close()
        raise
    return box
