"""Ext4 images from layers: nothing is unpacked, mounted or run as root, and no path of an archive is used here."""
