"""What is installed, and how it got there: generations, their state, and the switch between them."""
