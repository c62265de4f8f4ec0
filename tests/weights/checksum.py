"""CRC-32C as its definition reads, to hold the fast one against and to sign files with."""


def plain_crc(data: bytes) -> int:
    """CRC-32C bit by bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 * (register & 1))
    return register ^ 0xFFFFFFFF


def stored_crc(data: bytes) -> bytes:
    checksum = plain_crc(data)
    turned = (checksum >> 15 | checksum << 17) & 0xFFFFFFFF
    return ((turned + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")
