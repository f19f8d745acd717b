"""Nostr public keys in hex or as npubs (NIP-19), parsed without a library.

An npub is bech32 (BIP 173): the prefix `npub`, a `1`, and 5-bit digits, of which the last six are a checksum.
"""

import re

_DIGITS = {digit: value for value, digit in enumerate("qpzry9x8gf2tvdw0s3jn54khce6mua7l")}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def _remainders() -> list[int]:
    table = []
    for top in range(32):
        remainder = 0
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                remainder ^= generator
        table.append(remainder)
    return table


# The step of the checksum for each value of its top five bits: a table, since each call parses hundreds of keys.
_REMAINDERS = _remainders()


def _checksum(values: list[int]) -> int:
    checksum = 1
    for value in values:
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value ^ _REMAINDERS[checksum >> 25]
    return checksum


# The checksum includes the prefix: the high bits of its characters, a zero, and their low bits.
_PREFIX = [ord(c) >> 5 for c in "npub"] + [0] + [ord(c) & 31 for c in "npub"]


def public_key(text: str) -> str:
    """The key as 64 lower-case hex digits, from hex or an npub. Raises ValueError with what is wrong."""
    if re.fullmatch("[0-9a-f]{64}", text):
        return text
    # BIP 173 allows upper case, for QR codes, but not mixed case.
    if text == text.upper():
        text = text.lower()
    if not text.startswith("npub1") or text != text.lower():
        raise ValueError("must be a public key: npub1… or 64 lower-case hex digits")
    data = text.removeprefix("npub1")
    if len(data) != 58:
        raise ValueError("is not an npub: it must have 63 characters")
    try:
        values = [_DIGITS[digit] for digit in data]
    except KeyError:
        raise ValueError("is not an npub: it has a character that bech32 does not allow") from None
    if _checksum(_PREFIX + values) != 1:
        raise ValueError("is not an npub: the checksum is wrong; check for typing errors")
    bits = 0
    for value in values[:-6]:
        bits = bits << 5 | value
    # 52 digits are 260 bits; a key has 256, and the last four are zero.
    if bits & 0b1111:
        raise ValueError("is not an npub: it has bits after the key")
    return f"{bits >> 4:064x}"
