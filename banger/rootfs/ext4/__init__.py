"""A writer of ext4 images: mke2fs makes the empty file system, this package fills it without mounting it.

Format facts are those of the Linux kernel's documentation, *ext4 Data Structures and Algorithms*
(Documentation/filesystems/ext4), checked against what e2fsck and the kernel accept.
"""
