"""A small resolver inside the daemon: names of VMs, and names of the outside world for guests, as their policy allows.

Start and stop it through :class:`banger.dns.service.DnsService`; :mod:`banger.dns.model` says what it must be told.
The wire format is dnspython's, which is loaded when the resolver starts and not before.
"""
