"""The HTTP surface over the Unix socket. No domain logic: decode, ask, encode."""
