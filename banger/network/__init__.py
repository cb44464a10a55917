"""The ``tap`` network: a bridge, taps, addresses and packet filter rules of our own, for root or CAP_NET_ADMIN."""
