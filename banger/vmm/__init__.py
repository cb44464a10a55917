"""VMM drivers, and the identity of their processes."""
