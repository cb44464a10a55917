"""Bundles: a whole managed image as one OCI artifact or one file, and images given away as plain OCI images."""
