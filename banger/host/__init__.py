"""What the owners need from this host besides a VMM: cleanup, publishing, ports, resources."""
