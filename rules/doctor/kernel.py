"""Checks of what the kernel must be able to do: programs, features, and the helper of old."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rules.capture import has_native_queue, has_transparent_proxy
from rules.doctor.finding import Finding, error, ok, warning
from rules.programs import ProgramFailed, run_program
from rules.ruleset import render_ruleset
from rules.settings import Settings

_ASSIGNING = Path("/proc/sys/net/netfilter/nf_conntrack_helper")
OPENWRT = Path("/etc/openwrt_release")
_QUEUE_TRIAL = "*mangle\n:FORWARD ACCEPT\n-A FORWARD -j NFQUEUE --queue-num 0\nCOMMIT\n"


def check_assignment() -> Iterator[Finding]:
    """Looks for the kernel that gives flows their helper by itself (before Linux 6.0, A79)."""
    if _ASSIGNING.exists() and _ASSIGNING.read_text().strip() != "0":
        yield error(
            "sip-helper",
            "the kernel gives every flow to port 5060 its SIP helper, which rewrites messages too",
            "sysctl -w net.netfilter.nf_conntrack_helper=0",
            "conntrack -D -p udp --dport 5060",
        )


def check_features(settings: Settings, *, wants_relay: bool) -> Iterator[Finding]:
    """Looks for what the rules need of nft, the kernel and iptables; asks by dry runs."""
    try:
        run_program("nft", "--version")
    except ProgramFailed as failure:
        yield error("kernel", str(failure), _install("nftables", "nftables"))
        return
    is_native = has_native_queue()
    found = [*_check_queue(is_native), *(_check_relay() if wants_relay else ())]
    try:
        text = render_ruleset(settings, is_native)
        run_program("nft", "--check", "--file", "-", text=text)
    except ProgramFailed as failure:
        found.append(
            error(
                "kernel",
                f"the kernel or nft does not take sipnat's rules ({failure})",
                _install("kmod-nft-nat kmod-nft-core", "nftables"),
            )
        )
    yield from found
    if not found:
        how = "nft queue" if is_native else "iptables NFQUEUE"
        yield ok("kernel", f"the kernel has what sipnat's rules need, packets come by {how}")


def _check_queue(is_native: bool) -> Iterator[Finding]:
    if is_native:
        return
    try:
        run_program("iptables-restore", "--test", "--noflush", text=_QUEUE_TRIAL)
    except ProgramFailed as failure:
        text = f"nothing can hand packets to sipnat: nft has no queue here, and {failure}"
        yield error("kernel", text, _install("kmod-nft-queue", "iptables"))


def _check_relay() -> Iterator[Finding]:
    if not has_transparent_proxy():
        yield warning(
            "kernel",
            "SIP over TCP passes as it is: the kernel lacks nft_tproxy, nft_socket or nft_fib",
            _install("kmod-nft-tproxy kmod-nft-socket kmod-nft-fib", ""),
            configuration=("tcp = false",),
        )


def _install(openwrt: str, debian: str) -> str:
    """Returns the command that brings it on this system; Debian's kernels have all modules."""
    if OPENWRT.exists():
        return f"opkg install {openwrt}"
    if debian:
        return f"apt-get install {debian}"
    return "modprobe -a nft_tproxy nft_socket nft_fib_inet"
