"""The kernel side of sipnat: nftables maps and chains, conntrack, and the capture of signalling.

`nat_table` says which mappings there are (`Change`); this package makes the kernel do it. It knows
no SIP. The seam is `rules.backend.Backend`.
"""
