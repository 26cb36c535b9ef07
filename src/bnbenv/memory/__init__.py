"""What a model needs of memory, while it is loaded and while it is trained; and its quantisation on disk."""
