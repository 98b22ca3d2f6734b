"""The routes of the HTTP interface, one module per kind of thing that is asked for."""
