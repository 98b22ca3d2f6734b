"""Many pairs in one run: which they are, the work on them, the table and the page of results; and a series."""
