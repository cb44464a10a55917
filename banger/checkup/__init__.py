"""``banger doctor --boot``: boots a temporary VM on each accelerator that should work here, and checks it."""
