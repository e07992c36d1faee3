"""find_sdp: the descriptions in a body, however deep, and nothing that is encoded or signed."""

from __future__ import annotations

import pytest

from alg.sdp.multipart import MAX_DEPTH, find_sdp, is_signed, is_type
from tests.alg.playbook import crlf

SDP = "v=0\nm=audio 4000 RTP/AVP 0\n"
BEFORE, AFTER = b"--b\r\nhead\r\n\r\n", b"--b\r\nContent-Type: application/sdp\r\n\r\nv=1"


def found(body: str | bytes, content_type: bytes = b"multipart/mixed;boundary=b") -> list[bytes]:
    """Returns the descriptions found in a body that stands between other bytes."""
    content = body if isinstance(body, bytes) else crlf(body)
    data = BEFORE + content + AFTER
    end = len(BEFORE) + len(content)
    return [data[slice(*part)] for part in find_sdp(data, len(BEFORE), end, content_type)]


def part(content: str = SDP, *headers: str, kind: str = "application/sdp") -> str:
    lines = (f"Content-Type: {kind}", *headers, "", content)
    return "--b\n" + "\n".join(lines)


CONTENT = crlf(SDP)[:-2]  # the last line break belongs to the delimiter


def test_a_plain_body_is_the_description() -> None:
    assert found(SDP, b"application/sdp") == [crlf(SDP)]
    assert found(SDP, b'Application/SDP ; charset="utf-8"') == [crlf(SDP)]


@pytest.mark.parametrize(
    "kind",
    [b"", b"text/plain", b"application/sdpx", b"message/sipfrag", b"multipart", b"multipart/x"],
)
def test_a67_any_other_body_has_none(kind: bytes) -> None:
    assert found(part() + "--b--\n", kind) == []


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/mixed;boundary=b",
        b"multipart/mixed; boundary=b; x=y",
        b'Multipart/Alternative;x="y";BOUNDARY = "b"',
        b"multipart/related;type=a/b;\r\n boundary=b",
    ],
)
def test_a10_the_boundary_is_read(content_type: bytes) -> None:
    assert found(part() + "--b--\n", content_type) == [CONTENT]


def test_a10_boundary_characters_mean_themselves() -> None:
    body = part().replace("--b\n", "--(b).*'\n") + "--(b).*'--\n"
    assert found(body, b'multipart/mixed;boundary="(b).*\'"') == [CONTENT]


def test_a10_every_part_is_looked_at() -> None:
    body = "preamble\n" + part("isup\n", kind="application/ISUP") + part()
    body += part("<x/>\n", kind="application/pidf+xml") + part() + "--b--\nepilogue\n" + part()
    assert found(body) == [CONTENT, CONTENT]


def test_a10_parts_may_have_folded_headers_or_none() -> None:
    folded = "--b\nX: 1\n  a: 2\ncontent-type:\n\tapplication/sdp\n ; x=y\n\n" + SDP
    assert found("--b\n\nv=0\n" + folded + "--b--\n") == [CONTENT]


def test_a08_line_feeds_alone_delimit_too() -> None:
    body = (part() + part() + "--b--\n").encode()
    assert found(body) == [SDP.encode()[:-1]] * 2


def test_a10_a_missing_close_leaves_the_last_part_alone() -> None:
    assert found(part() + part()) == [CONTENT]


def test_a10_white_space_may_follow_the_boundary_but_nothing_else() -> None:
    assert found(part().replace("--b\n", "--b \t\n") + "--b--\n") == [CONTENT]
    assert found(part().replace("--b\n", "--bb\n") + "--b--\n") == []


def nested(depth: int) -> str:
    """Renders a description inside `depth` multiparts."""
    body, kind = SDP, "application/sdp"
    for level in range(depth):
        body = f"--n{level}\nContent-Type: {kind}\n\n{body}\n--n{level}--\n"
        kind = f"multipart/mixed;boundary=n{level}"
    return body


@pytest.mark.parametrize("depth", range(1, MAX_DEPTH + 3))
def test_a10_a85_parts_are_nested_to_a_small_depth(depth: int) -> None:
    kind = b"multipart/mixed;boundary=n%d" % (depth - 1)
    assert found(nested(depth), kind) == [crlf(SDP)] * (depth <= MAX_DEPTH)


@pytest.mark.parametrize(
    "header",
    ["Content-Encoding: gzip", "content-encoding:deflate", "Content-Transfer-Encoding: base64"],
)
def test_a10_an_encoded_part_is_left_alone(header: str) -> None:
    assert found(part(SDP, header) + "--b--\n") == []


@pytest.mark.parametrize("encoding", ["binary", "8bit", "7BIT", "identity"])
def test_a10_an_identity_encoding_is_none(encoding: str) -> None:
    assert found(part(SDP, f"Content-Transfer-Encoding: {encoding}") + "--b--\n") == [CONTENT]


def test_a08_white_space_around_the_slash() -> None:
    assert found(SDP, b"application / sdp") == [crlf(SDP)]


def test_a89_a_signed_multipart_is_not_entered() -> None:
    assert found(part() + "--b--\n", b"multipart/signed;boundary=b") == []
    assert is_signed(b"Multipart/Signed; boundary=b")
    assert is_signed(b"application/pkcs7-mime; smime-type=enveloped-data")
    assert not is_signed(b'multipart/mixed; x="pkcs7"')


def test_types_are_compared_without_parameters() -> None:
    assert is_type(b" Application/SDP ;x=application/isup", b"application/sdp")
    assert not is_type(b"text/plain;application/sdp", b"application/sdp")


@pytest.mark.timeout(5)
def test_a85_folded_part_headers_cost_linear_time() -> None:
    """A line that may be read in two ways would take 2^60 tries."""
    assert found("--b\nA: b\n" + " c: d\n" * 60 + "--b--\n") == []


def test_a85_many_parts_cost_linear_time() -> None:
    assert found("--b\n" * 10000 + "--b--\n") == []
    assert len(found(part() * 3000 + "--b--\n")) == 32
