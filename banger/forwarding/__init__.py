"""Published ports: a small process per VM that forwards them through the guest's agent.

``process``, ``loop``, ``link``, ``streams`` and ``datagrams`` run in that process and import nothing but the standard
library, each other and the agent's codec; ``forwarders`` is the daemon's side.
"""
