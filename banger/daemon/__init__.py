"""The supervisor process: its parts made and joined, served on a socket, logged, and known to systemd."""
