"""``banger doctor --boot``: boots a throw-away VM on everything that should work here, and proves that it does."""
