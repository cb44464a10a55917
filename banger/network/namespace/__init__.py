"""The network ``user``: taps in a user and network namespace of the installation, with an uplink by ``pasta``.

Nothing here takes privileges, and nothing on the host's own network is changed. Three kinds of processes belong to it:

- the *holder* (:mod:`~banger.network.namespace.holder`) keeps the namespaces, and does nothing;
- ``pasta`` (:mod:`~banger.network.namespace.uplink`) connects them to the world, through sockets of the host;
- a *worker* of each daemon (:mod:`~banger.network.namespace.worker`) does in there what the daemon asks.

The first two outlive the daemon, as VMs do, are found by a marker in their command lines, and are shared by all VMs.
"""
