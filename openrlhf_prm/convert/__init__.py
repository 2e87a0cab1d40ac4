"""Foreign formats -> what this project reads."""
