"""Can this machine, and the Ray cluster behind it, serve a PRM, train one, run PPO? Looked at, and judged, apart."""
