"""The requests of the HTTP API as dataclasses, shared by the command, the SDK and the daemon.

All three build the same objects and encode them with the same codec (:mod:`banger.core.codec`).
"""
