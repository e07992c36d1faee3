"""The daemon: where the engine, the kernel side and the outside world are put together.

    process.py      what is started in which order, and stopped in the other
    claim.py        one sipnat to a table
    settings.py     the configuration, as each part wants it
    decisions.py    one message: an outcome, and its changes into the kernel
    packet_path.py  one packet from the queue and back
    connections.py  TCP connections: whom each is for, and its messages
    requests.py     requests for mappings: who answers them
    static_mappings.py  the mappings of the configuration
    views.py        what the command line may ask
    steering.py     what an administrator asks of it
    reloading.py    the configuration read again while calls go on
    doctor.py       what would break calls, by all checks
    proposal.py     a configuration that fits this router
    neighbours.py   what else on it speaks SIP, or takes it elsewhere
    observation.py  who watches, put together
    http_port.py    metrics and the status page, if they are wanted
    status_page.py  what the HTTP port serves
    scrape.py       what metrics say
    media_watch.py  what the media of calls carries, and who has fallen silent
    ledger.py       changes of the table: into the kernel, and into the store
    restart.py      what an earlier run left: taken over, or set right
    upkeep.py       what has to be done now and then, and when the kernel tells of something
    supervision.py  what systemd is told while packets are handled
    uninstalling.py what is left in the kernel goes out of it

This is the only package of `alg` that imports `rules`.
"""

from alg.daemon.process import run_daemon
from alg.daemon.settings import StartError, ruleset_text

__all__ = ["StartError", "ruleset_text", "run_daemon"]
