"""Bundles: a whole managed image as one OCI artifact or file, and images exported as plain OCI images."""
