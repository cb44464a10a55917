"""The QEMU driver: machines ``microvm`` and ``q35``, on KVM or emulated. Its port is in :mod:`.driver`."""
