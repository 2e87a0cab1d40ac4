"""Is an answer right? Checkers, the process that compares formulas, and the outcome rewards made of them."""
