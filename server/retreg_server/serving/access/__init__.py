"""Who may use a server, for what, and from where."""
