"""Compiles the packet path, where SIPNAT_COMPILE=1 asks for it; all else stands in pyproject.toml.

mypyc makes native modules of the same typed Python. They lie beside their sources, and Python takes
them first; without them sipnat is the same, only slower (`sipnat version` says which runs). The
Debian package and the image are compiled, a checkout is not.

Left out is what mypyc cannot take, or what would lose by it: types that msgspec reads rows into (it
needs their annotations, which a native module does not keep), and whatever is not on the way of a
packet.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import setup

WHOLE = ("nat_table", "alg/sip", "alg/sdp", "alg/dialogs")
PARTS = {
    "alg": "datagram exchange failures gateway inbound left mappings methods new_call notes "
    "outbound outside packet rewrite rewrite_body state verdict written",
    "alg/daemon": "decisions ledger overload packet_path",
    "alg/observe": "metrics observers",
    "rules": "audiences commits elements encoding netlink permits strays",
}
LEFT_OUT = {
    "alg/sip/stream.py",
    "nat_table/refusal.py",
    "nat_table/snapshot.py",
}


def compiled() -> list[str]:
    """Returns the paths of the modules to compile."""
    paths = {str(path) for folder in WHOLE for path in Path(folder).glob("[!_]*.py")}
    paths |= {f"{folder}/{name}.py" for folder, names in PARTS.items() for name in names.split()}
    return sorted(paths - LEFT_OUT)


# What is checked elsewhere need not be here, where the libraries may not be installed yet.
MYPY = ("--config-file=", "--follow-imports=silent", "--ignore-missing-imports")

if os.environ.get("SIPNAT_COMPILE") == "1":
    from mypyc.build import mypycify

    modules = mypycify([*MYPY, *compiled()], opt_level="2", debug_level="0", group_name="sipnat")
    setup(ext_modules=modules)
else:
    setup()
