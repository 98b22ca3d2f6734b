"""Many images at once: the mean they are registered to, and which of them do not belong."""
