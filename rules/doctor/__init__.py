"""What on this router would break calls; it only looks, and changes nothing.

finding.py     what a check has found, and what cures it
probe.py       a packet of a call, as a firewall sees it
firewall.py    chains and rules of whichever firewall, and what becomes of a probe in them
nftables.py    reads them from nft
iptables.py    reads them from iptables, ip6tables and their legacy variants
owners.py      whose firewall it is
reading.py     the firewall of this router
way.py         checks that follow packets of a call through the firewall
kernel.py      checks of what the kernel must be able to do
host.py        checks of sysctls, routes, the clock and the ports of others
"""
