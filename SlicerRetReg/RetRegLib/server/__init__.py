"""The server: the way to it, consent, and one of our own on this computer."""
