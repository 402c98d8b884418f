"""What the benchmarks share: running a guest, pairing and summing up, tables."""
