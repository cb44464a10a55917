"""Published ports where the VMM's own stack cannot be trusted to say that nobody listens: a small process per VM.

``process``, ``loop``, ``streams``, ``datagrams`` and ``dialers`` run in that process and import nothing but the
standard library and each other; ``forwarders`` is the daemon's side.
"""
