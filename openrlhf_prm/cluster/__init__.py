"""Where things run: Ray's session, engines as actors, what differs on a CPU, what fits where."""
