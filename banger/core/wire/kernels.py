"""Requests about kernels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PullKernelBody:
    """``POST /v1/kernels/pull``: the name of a catalog entry; or a source, and the name to keep it under."""

    name: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class ImportKernelBody:
    """``POST /v1/kernels/import``: absolute paths on this host."""

    name: str
    kernel_path: str
    modules_path: str = ""
    initrd_path: str = ""
    cmdline: str = ""


@dataclass(frozen=True, slots=True)
class PushKernelBody:
    """``POST /v1/kernels/QUERY/push``."""

    reference: str
    plain_http: bool = False
