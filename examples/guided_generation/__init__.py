"""Search at inference time: a generation server writes, a PRM server judges."""
