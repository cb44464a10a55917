"""banger: disposable Linux machines on your own host."""

__version__ = "0.1.0"
