"""Every statistic once: choices among responses, steps against their labels, curves. Numbers in, numbers out."""
