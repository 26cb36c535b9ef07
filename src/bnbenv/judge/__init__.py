"""What works on what, and why: pure functions over the matrix, a stack and a target."""
