"""RFC 6296: its own example, and what any translation of prefixes owes to any address."""

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_table.prefix import PrefixTranslation

numbers = st.integers(0, 2**128 - 1)
lengths = st.integers(1, 64)


def translation(internal: str, external: str) -> PrefixTranslation:
    return PrefixTranslation(IPv6Network(internal), IPv6Network(external))


def folded_sum(address: str) -> int:
    """Returns the ones' complement sum of the words, zero for both of its zeros."""
    packed = IPv6Address(address).packed
    total = sum(int.from_bytes(packed[i : i + 2], "big") for i in range(0, 16, 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total % 0xFFFF


@pytest.mark.parametrize(
    ("internal", "external", "address", "mapped"),
    [
        # RFC 6296 §3.6, with erratum 3033
        ("fd01:203:405::/48", "2001:db8:1::/48", "fd01:203:405:1::1234", "2001:db8:1:d550::1234"),
        ("fd01:203:405::/56", "2001:db8:1::/56", "fd01:203:405:1::1234", "2001:db8:1:1:d54f::1234"),
        ("fd00::/64", "2001:db8::/64", "fd00::ffff:1:2:3", "2001:db8::ffff:cf48:2:3"),
        ("fd00::/64", "2001:db8::/64", "fd00::1", "2001:db8::cf47:0:0:1"),
        ("fd00:0:0:100::/56", "2001:db8:0:200::/56", "fd00:0:0:1ab::5", "2001:db8:0:2ab:ce47::5"),
    ],
)
def test_a_prefix_takes_the_place_of_another(
    internal: str, external: str, address: str, mapped: str
) -> None:
    both = translation(internal, external)
    assert both.to_external(address) == mapped
    assert both.to_internal(mapped) == address
    assert folded_sum(address) == folded_sum(mapped)


@given(lengths, numbers, numbers, numbers)
def test_any_address_is_mapped_there_and_back_with_the_same_sum(
    length: int, internal: int, external: int, address: int
) -> None:
    inside = IPv6Network((internal, length), strict=False)
    outside = IPv6Network((external, length), strict=False)
    host = str(IPv6Address(address & int(inside.hostmask) | int(inside.network_address)))
    mapped = PrefixTranslation(inside, outside).to_external(host)
    if mapped is None:
        words = IPv6Address(host).exploded.split(":")
        assert words[4:] == ["ffff"] * 4 or (words[3] == "ffff" and length <= 48)
        return
    assert IPv6Address(mapped) in outside
    assert folded_sum(mapped) == folded_sum(host)
    assert PrefixTranslation(inside, outside).to_internal(mapped) == host


@pytest.mark.parametrize(
    "address",
    [
        "fd00::2:ffff:ffff:ffff:ffff",  # §3.7
        "fd00:0:0:ffff::1",  # §3.5: 0 and ffff are one number
        "fd01::1",
        "2001:db8::1",
        "10.0.0.1",
        "phone",
    ],
)
def test_an_address_without_counterpart_has_none(address: str) -> None:
    assert translation("fd00::/48", "2001:db8::/48").to_external(address) is None


def test_a_prefix_in_the_place_of_itself_changes_nothing() -> None:
    same = translation("2001:db8:1::/48", "2001:db8:1::/48")
    assert same.is_identity
    for address in ("2001:db8:1::1", "2001:db8:1:ffff::1", "2001:db8:1::ffff:ffff:ffff:ffff"):
        assert same.to_external(address) == same.to_internal(address) == address
    assert same.to_external("2001:db8:2::1") is None
    assert not translation("fd00::/48", "2001:db8::/48").is_identity


@pytest.mark.parametrize(
    ("internal", "external"), [("fd00::/48", "2001:db8::/56"), ("fd00::/65", "2001:db8::/65")]
)
def test_prefixes_that_do_not_fit_are_refused(internal: str, external: str) -> None:
    with pytest.raises(ValueError, match="fd00::/"):
        translation(internal, external)
