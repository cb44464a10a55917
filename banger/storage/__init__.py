"""Storage drivers: how a VM gets a disk of its own over a shared image."""
