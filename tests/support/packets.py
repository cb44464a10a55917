"""Packets as a forger writes them, byte by byte."""

from __future__ import annotations

import socket
import struct


def ethernet(destination: str, source: str, kind: int, payload: bytes) -> bytes:
    """A frame."""
    return _mac(destination) + _mac(source) + struct.pack("!H", kind) + payload


def ipv4_udp(source: str, destination: str, port: int, data: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram in it, whose checksum is left out (RFC 768)."""
    udp = struct.pack("!HHHH", 40000, port, 8 + len(data), 0) + data
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    return head[:10] + struct.pack("!H", _checksum(head + ends)) + ends + udp


def ipv6_udp(source: str, destination: str, port: int, data: bytes) -> bytes:
    """An IPv6 packet with a UDP datagram in it."""
    return _ipv6(source, destination, 17, struct.pack("!HHHH", 40000, port, 8 + len(data), 0) + data, checksum_at=6)


def neighbour_advertisement(source: str, destination: str, target: str, mac: str) -> bytes:
    """An IPv6 packet that says which MAC address ``target`` has, to override what is known (RFC 4861, 4.4)."""
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + socket.inet_pton(socket.AF_INET6, target)
    body += b"\x02\x01" + _mac(mac)
    return _ipv6(source, destination, 58, body, checksum_at=2, hops=255)


def arp_reply(mac: str, address: str, to_mac: str, to_address: str) -> bytes:
    """An ARP answer (RFC 826)."""
    ends = _mac(mac) + socket.inet_aton(address) + _mac(to_mac) + socket.inet_aton(to_address)
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + ends


def _ipv6(source: str, destination: str, protocol: int, body: bytes, *, checksum_at: int, hops: int = 64) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    total = _checksum(ends + struct.pack("!II", len(body), protocol) + body)
    body = body[:checksum_at] + struct.pack("!H", total) + body[checksum_at + 2 :]
    return struct.pack("!IHBB", 0x60000000, len(body), protocol, hops) + ends + body


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
