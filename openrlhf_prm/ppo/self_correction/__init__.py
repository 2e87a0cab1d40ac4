"""A policy that corrects itself: several attempts at a question in one episode, each paid by itself (SCoRe)."""
