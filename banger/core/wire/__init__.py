"""The vocabulary of the HTTP API: what travels between the command, the SDK and the daemon, as dataclasses.

All three build the same objects and encode them with the same codec (:mod:`banger.core.codec`).
"""
