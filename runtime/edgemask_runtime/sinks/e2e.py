"""End-to-end protection of what goes onto a bus: AUTOSAR's profiles 11 (and 1A, the same bytes) and 5.

AUTOSAR_FO_PRS_E2EProtocol: a receiver finds a frame that is corrupt, repeated, lost or from another sender. Both put
a checksum and a counter in front; the data identifier is in the checksum and not on the bus.
"""

from __future__ import annotations

import binascii

SAE_J1850 = 0x1D
COUNTERS_11, COUNTERS_5 = 15, 256
"""How many values the counter has; 15 stands for none in profile 11."""


def _table() -> bytes:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = (value << 1 ^ SAE_J1850) & 0xFF if value & 0x80 else value << 1
        rows.append(value)
    return bytes(rows)


_CRC8 = _table()


def protect_11(data: bytearray, data_id: int, counter: int) -> None:
    """Fill in byte 0, the CRC-8, and the low half of byte 1, the counter: profile 11 with both bytes of `data_id`."""
    data[1] = data[1] & 0xF0 | counter % COUNTERS_11
    crc = 0
    for byte in data_id.to_bytes(2, "little") + data[1:]:
        crc = _CRC8[crc ^ byte]
    data[0] = crc


def protect_5(data: bytearray, data_id: int, counter: int) -> None:
    """Fill in bytes 0 and 1, the CRC-16 (CCITT, low byte first), and byte 2, the counter: profile 5."""
    data[2] = counter % COUNTERS_5
    crc = binascii.crc_hqx(data[2:] + data_id.to_bytes(2, "little"), 0xFFFF)
    data[:2] = crc.to_bytes(2, "little")
