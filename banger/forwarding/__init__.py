"""Published ports where the VMM's own network stack hides closed ports: a small forwarding process per VM.

``process``, ``loop``, ``streams``, ``datagrams`` and ``dialers`` run in that process and import nothing but the
standard library and each other; ``forwarders`` is the daemon's side.
"""
