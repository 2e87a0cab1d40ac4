"""Side-by-side measurements. Each command says what it measures with --help and writes benchmarks/results/."""
