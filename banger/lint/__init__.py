"""Checking beforehand whether an image will work in a VM: its init, shell and libc, and the kernel's features."""
