"""The DNS probe's question and its reading of answers, against bytes written out by hand."""

import struct

import pytest

from appliance.probing.dns import answer_code, encode_query, is_proof

# RFC 1035 sections 4.1.1 and 4.1.2, spelled out octet by octet.
QUERY = bytes.fromhex("beef 0100 0001 0000 0000 0000 07 6578616d706c65 03 6e6574 00 0001 0001")
ANSWER = bytes.fromhex(
    "beef 8180 0001 0001 0000 0000 07 6578616d706c65 03 6e6574 00 0001 0001"
    "c00c 0001 0001 0000003c 0004 c0000201"
)


def respond(code: int, questions: int = 1) -> bytes:
    head = struct.pack(">HHHHHH", 0xBEEF, 0x8180 | code, questions, 0, 0, 0)
    return head + (QUERY[12:] if questions else b"")


def test_the_query_is_what_rfc_1035_says() -> None:
    assert encode_query(0xBEEF, "example.net") == QUERY
    assert encode_query(0xBEEF, "example.net.") == QUERY
    assert encode_query(1, ".")[12:] == bytes.fromhex("00 0001 0001")


@pytest.mark.parametrize("name", ["a..b", "x" * 64, ".".join(["x" * 60] * 5), "bücher.example"])
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"label|longer|ascii"):
        encode_query(1, name)


def test_an_answer_to_our_question_has_a_code() -> None:
    assert answer_code(ANSWER, 0xBEEF, "example.net") == 0
    assert answer_code(ANSWER.replace(b"example", b"EXAMPLE"), 0xBEEF, "example.net") == 0
    for code in range(16):
        assert answer_code(respond(code), 0xBEEF, "example.net") == code


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (ANSWER[:11], "cut inside the header"),
        (ANSWER[:20], "cut inside the question"),
        (QUERY, "a query, not a response"),
        (ANSWER.replace(b"\xbe\xef", b"\xbe\xee"), "another query's"),
        (ANSWER.replace(b"example", b"examples"[1:]), "another name's"),
        (respond(0, questions=0), "an answer to no question"),
    ],
)
def test_what_is_no_answer_to_our_question_is_none(data: bytes, why: str) -> None:
    assert answer_code(data, 0xBEEF, "example.net") is None, why


def test_an_error_may_come_without_the_question() -> None:
    assert answer_code(respond(1, questions=0), 0xBEEF, "example.net") == 1


def test_only_an_answer_of_the_dns_itself_is_a_proof() -> None:
    assert [code for code in range(16) if is_proof(code)] == [0, 3]
