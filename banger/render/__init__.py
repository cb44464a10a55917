"""Output formatting: tables, sizes, progress, errors. Values in, text out; nothing here talks to the daemon."""
