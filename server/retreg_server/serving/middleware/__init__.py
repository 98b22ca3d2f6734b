"""What every request passes before a route sees it: access, size of bodies, the log."""
