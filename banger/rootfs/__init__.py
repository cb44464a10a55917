"""Layers in, ext4 image out: nothing is unpacked, mounted or run as root; no path of an archive becomes one here."""
