"""What banger runs inside a guest: the toolbox initrd, the per-VM archive, and the channel to them."""
