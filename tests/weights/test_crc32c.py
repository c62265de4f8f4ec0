"""The fast checksum is the one of the published vectors and of the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptailor.weights.crc32c import crc32c
from tests.weights.checksum import plain_crc


def test_crc32c_of_the_published_vectors():
    """RFC 3720, appendix B.4, and the check value that catalogues of such sums list."""
    vectors = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E, b"123456789": 0xE3069283}
    for data, expected in vectors.items():
        assert crc32c(np.frombuffer(data, np.uint8)) == expected


@given(st.binary(max_size=600), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_crc32c_is_the_sum_taken_bit_by_bit(data, skipped):
    assert crc32c(np.frombuffer(data, np.uint8)[skipped:]) == plain_crc(data[skipped:])


@pytest.mark.parametrize("words", [16_383, 16_384, 3 * 16_384 + 700])
def test_crc32c_of_long_rows(words):
    data = np.random.default_rng(words).integers(0, 256, 4 * words + 3, dtype=np.uint8)
    assert crc32c(data) == plain_crc(data.tobytes())
