"""What the server keeps: images in memory, results of jobs in a database."""
