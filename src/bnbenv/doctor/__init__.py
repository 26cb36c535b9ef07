"""What is wrong with an environment, from its files and the machine; and what would mend it."""
