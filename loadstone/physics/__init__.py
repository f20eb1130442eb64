"""What a server is, pure: chips, models, memory, the step law, money."""
