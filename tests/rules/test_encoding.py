"""Steps become as few messages as can be, and keep the order that matters."""

from __future__ import annotations

from rules.elements import Step
from rules.encoding import DELETE_ELEMENT, NEW_ELEMENT, Encoder

ONE, OTHER = (
    bytes.fromhex("11000000 0a000014 0fa00000"),
    bytes.fromhex("11000000 0a000015 0fa00000"),
)
DATA = bytes.fromhex("cb007101 4e200000")


def added(name: str, key: bytes, data: bytes = b"") -> Step:
    return True, name, key, data


def deleted(name: str, key: bytes, data: bytes = b"") -> Step:
    return False, name, key, data


def test_elements_of_a_set_share_a_message() -> None:
    encoder = Encoder("sipnat")
    steps = [
        added("outbound", ONE, DATA),
        added("media", ONE),
        added("outbound", OTHER, DATA),
        added("media", OTHER),
    ]
    outbound, media = encoder.steps(steps)
    assert [outbound[0], media[0]] == [NEW_ELEMENT, NEW_ELEMENT]
    assert outbound[2].count(DATA) == 2 and ONE in outbound[2] and OTHER in outbound[2]
    assert media[2].endswith(OTHER) and ONE in media[2]


def test_what_goes_before_what_comes_stays_before_it() -> None:
    steps = [deleted("media", ONE), added("media", OTHER), deleted("media", OTHER)]
    requests = Encoder("sipnat").steps(steps)
    assert [kind for kind, *_ in requests] == [DELETE_ELEMENT, NEW_ELEMENT, DELETE_ELEMENT]


def test_a_message_is_never_longer_than_its_attributes_can_tell() -> None:
    key6 = bytes(24 + 20)
    steps = [added("permitted6", key6 + n.to_bytes(44, "big")) for n in range(2000)]
    requests = Encoder("sipnat").steps(steps)
    assert len(requests) > 1 and all(len(body) < 0xFFFF for *_, body in requests)
