"""The IPv6 half of the rules, derived from the IPv4 half.

Whatever is said for IPv4 is said again for IPv6, by other words for addresses and with "6" after
every name. So a rule is written and reviewed once. What differs follows from the mode:

 - NAT66 is what IPv4 is;
 - with NPTv6 ports stay, so no flow can take another's: no fence, and no guard of free ports. A
   packet may have been translated by another NPT than our map, so an inbound one is known by its
   internal endpoint alone. That NPT would take the relay's packets for a phone's, so there is no
   relay beside it;
 - a pinhole translates nothing. Whom filtering refuses is not dropped, or relayed, but left without
   the mark: what a routed network lets in is its firewall's to say. The two connections that the
   relay makes of one have the same addresses and ports, so conntrack sees the outer one only.

Packets that outgrow the path cannot be fragmented on their way (RFC 8200 section 5), so messages
are sent anew from the router (`alg.io.resend`), marked as they would be for the queue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nat_table.behavior import Filtering, Mode6
from rules.settings import Settings

CHAINS = ("signalling_filter", "media_filter", "carrying", "without_relay")
"""The variables that stand for a chain."""

_BLOCK = re.compile(r"^    (map|set|chain) (\w+) \{\n.*?^    \}\n", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^ *#.*\n", re.MULTILINE)
_WORDS = (
    (r"\bipv4", "ipv6"),
    (r"\bip (?=[sd]addr|to )", "ip6 "),
    (r"\b127\.0\.0\.1\b", "[::1]"),
    (r"\b255\.255\.255\.0\b", "ffff:ffff:ffff:ffff::"),
    (rf"\$({'|'.join(CHAINS)}|external_addresses|fence_address)\b", r"$\g<1>6"),
)
_OF_PORTS = {"bound", "stranger", "unheard"}
_OF_NAT = {"inbound", "outbound", "to_internal", "to_external"} | _OF_PORTS
_OF_ADMISSION = {"connecting"}
_OF_RELAY = {
    "relaying",
    "arriving",
    "answering",
    "divert_inbound",
    "divert_outbound",
    "to_relay",
    "pass",
    "hold",
}
_OF_NAT66 = re.compile(r"\$external_addresses|\$fence_address")
_OF_RELAYED = re.compile(r"@relayed|socket transparent 1")
_UNFILTERED = re.compile(r"meta l4proto tcp return")
_HAIRPIN = re.compile(r"oifname \$internal ct status dnat")

_RESENT = """
    # Messages that the router sends in the name of their senders because they outgrew the path.
    # Outbound ones are flows of a mapping like others. Inbound ones show the internal endpoint
    # already: to conntrack they would be strangers on an endpoint that has a flow.
    chain resend {
        type filter hook output priority raw; policy accept;

        meta nfproto ipv4 meta mark & $queue_mark == $queue_mark oifname != $external notrack
    }
    chain resent {
        type filter hook output priority mangle; policy accept;

        meta nfproto != ipv4 accept
        meta mark & $queue_mark != $queue_mark accept
        ct state new ct mark set ct mark | $flow_marks
        ip daddr != @routed meta l4proto . ip saddr . th sport @signalling goto contact
    }
"""
_SYN = "tcp flags & (fin | syn | rst | ack) == syn"
_LEAVING = "fib daddr . mark oifname $external"
_RIGHTS = (
    "meta l4proto . ip daddr . th dport . ip saddr @admitted ",
    "meta l4proto . ip daddr . th dport @unfiltered ",
    "meta l4proto . ip daddr . th dport . ip saddr . th sport @permitted ",
)
_TO_RELAY = f"        {_SYN} ip daddr . tcp dport @relayed %sgoto to_relay\n"
_ROUTED_RELAY = f"""
    chain relaying {{
        type filter hook prerouting priority raw; policy accept;

        meta nfproto != ipv4 accept
        meta l4proto tcp socket transparent 1 goto relay_packet
    }}
    chain relay_packet {{
        meta mark set meta mark | $relay_mark
        iifname $internal notrack
    }}
    chain answer_phone {{
        type filter hook output priority raw; policy accept;

        meta nfproto ipv4 oifname $internal meta l4proto tcp socket transparent 1 notrack
    }}
    chain divert_inbound {{
        type filter hook prerouting priority raw; policy accept;

        meta nfproto != ipv4 accept
        iifname != $external accept
        ip saddr @routed accept
{_TO_RELAY % "ip saddr @servers "}%s    }}
    chain divert_outbound {{
        type filter hook prerouting priority raw; policy accept;

        meta nfproto != ipv4 accept
        ip daddr @routed accept
        iifname $internal tcp dport $sip_ports {_SYN} {_LEAVING} goto to_relay
    }}
    chain to_relay {{
        meta l4proto tcp tproxy ip to 127.0.0.1:$relay_port goto relay_packet
        goto $without_relay
    }}
    chain pass {{
        accept
    }}
    chain hold {{
        drop
    }}
"""
_UNTRANSLATED = """
    chain unqueued {
        type filter hook forward priority mangle + 5; policy accept;

        meta nfproto != ipv4 accept
        meta mark & $queue_mark != $queue_mark accept
        ct mark & $open_mark == 0 jump recognise
    }
    chain unopened {
        ct mark set ct mark & ($flow_marks ^ 0xffffffff)
        meta mark set meta mark & ($open_mark ^ 0xffffffff) accept
    }
"""


def derive_ruleset6(rules: str, settings: Settings) -> str:
    """Renders the IPv6 half of the rules; there is none where IPv6 is off."""
    mode = settings.mode6
    if mode is Mode6.OFF:
        return ""
    blocks = list(_BLOCK.finditer(_COMMENT.sub("", rules)))
    more = _RESENT
    if mode is Mode6.PINHOLE:
        more += _UNTRANSLATED
        if settings.is_relaying6:
            is_filtered = settings.signalling_filter is Filtering.ADDRESS_DEPENDENT
            rights = _RIGHTS if is_filtered else ("",)
            more += _ROUTED_RELAY % "".join(_TO_RELAY % each for each in rights)
    names = "|".join({block[2] for block in (*blocks, *_BLOCK.finditer(more))})
    text = "\n".join(_of_mode(blocks, settings)) + more
    text = re.sub(rf"((?:@|\b(?:map|set|chain|goto|jump) )(?:{names}))\b", r"\g<1>6", text)
    for word, word6 in _WORDS:
        text = re.sub(word, word6, text)
    text = re.sub(r"\n{3,}", "\n\n", text)
    return f"table inet sipnat {{\n{text}}}\n"


def _of_mode(blocks: list[re.Match[str]], settings: Settings) -> Iterator[str]:
    """Yields the blocks of a mode, still in IPv4's words."""
    mode, is_relaying = settings.mode6, settings.is_relaying6
    dropped = {Mode6.PINHOLE: _OF_NAT, Mode6.NPTV6: _OF_PORTS}.get(mode, set())
    if mode is Mode6.PINHOLE or not is_relaying:
        dropped = dropped | _OF_ADMISSION | _OF_RELAY
    if not is_relaying:
        dropped = dropped | {"relayed"}
    for block in blocks:
        if block[2] in dropped:
            continue
        text = block[0]
        if mode is not Mode6.NAT66:
            text = _without(_OF_NAT66, text)
        if not is_relaying:
            text = _without(_OF_RELAYED, text)
        if not is_relaying or mode is Mode6.PINHOLE:
            text = _without(_UNFILTERED, text)
        if mode is Mode6.NPTV6 and block[2] == "arrive":
            text = text.replace("ct status dnat ", "")
        if mode is Mode6.PINHOLE:
            text = _without(_HAIRPIN, text)
            text = text.replace("ct status dnat", "iifname $external")
        if mode is Mode6.PINHOLE and block[2] == "refuse":
            text = text.replace(" drop\n", " goto unopened\n")
        yield text


def _without(pattern: re.Pattern[str], text: str) -> str:
    return "".join(line for line in text.splitlines(True) if not pattern.search(line))
