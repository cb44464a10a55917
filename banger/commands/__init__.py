"""What each verb of ``banger`` does, one module per group of verbs; loaded only when it is typed."""
