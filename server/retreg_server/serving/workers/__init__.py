"""The processes that do the work, and how the server talks to them."""
