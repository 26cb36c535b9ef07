"""What is the machine? Probed, or read from a file for another one."""
