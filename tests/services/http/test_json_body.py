"""Bodies that are no JSON, and bodies that only look like it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.http.json_body import NotJson, check

MIB = 1 << 20
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(values, st.booleans())
def test_whatever_json_a_client_library_writes_passes(value: object, ascii_only: bool):
    check(json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass" if ascii_only else "strict"))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "Expecting value"),
        (b"{", "not JSON"),
        (b"{} x", "Extra data"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'"\xff"', "not UTF-8: byte 1 is 0xff"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"1e999", "larger than any float"),
        (b"9223372036854775808", "64 bits"),
        (b"[" + b"9" * 5000 + b"]", "64 bits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands twice"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b"[" * 65 + b"]" * 65, "deeper than 64"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
        (b"[" * MIB, "deeper than 64"),
        (b'{"a":' * (MIB // 5), "deeper than 64"),
    ],
)
def test_what_is_not_json_is_told_in_one_sentence(body: bytes, told: str):
    with pytest.raises(NotJson, match=r"^the body ") as error:
        check(body)
    assert told in str(error.value)
    assert len(str(error.value)) < 200


def test_what_stands_at_the_edge_passes():
    check(b"[" * 64 + b"]" * 64)
    check(b'["\\ud83d\\ude00", "\\u0000", -9223372036854775807, 1e308]')
