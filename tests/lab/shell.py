"""`./dev shell`: a shell on the router of a running lab, gateway included.

The phones and the server live as long as the shell does, and the phones are registered, so that
`sipnat show mappings`, `nft list ruleset` and `conntrack -L` have something to show.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.lab.gateway import Gateway
from tests.lab.namespace import exit_on_signals
from tests.lab.network import Network
from tests.lab.site import Site

WELCOME = """\
This is the router: lan0 is the phones' side, wan0 the outside. sipnat runs; both phones are
registered. Try:  sipnat show mappings --control $CONTROL;  nft list ruleset;  tcpdump -ni wan0
The rest of the lab: ip netns list. Leaving the shell removes it all."""


def main() -> int:
    """Opens the shell and returns its exit status."""
    exit_on_signals()
    with Network() as network, Gateway(network.router) as gateway, Site(network) as site:
        for phone in (site.phone_1, site.phone_2):
            site.register(phone)
        print(WELCOME)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        shell = os.environ.get("SHELL", "/bin/sh")
        return subprocess.run(
            network.router.command(shell),
            env={**os.environ, "PATH": path, "CONTROL": gateway.control},
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
