"""The names of networks, as typed by users and used in settings: ``vm.network``, ``--network``."""

from __future__ import annotations

#: ``user``: a bridge in a namespace of the installation, for every user. ``tap``: a bridge on the host's own network,
#: for root. ``slirp``: QEMU's own stack, which confines nothing.
NETWORKS = ("user", "tap", "slirp", "none")
