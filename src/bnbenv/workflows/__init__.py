"""What the program does, one story a file."""
