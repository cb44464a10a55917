"""VMM drivers, and which process is really ours."""
