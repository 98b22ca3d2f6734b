"""How bytes become requests: connections with bounds, an event loop that is watched, forms."""
