"""What runs inside a guest, made on the host: the toolbox initrd, the per-VM archive and the channel to them."""
