"""Many pairs, or a series, in one run: the work on them, the table and the pages of results."""
