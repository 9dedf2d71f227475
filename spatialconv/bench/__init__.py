"""Benchmarks that can be believed: suites of real layers, peers, interleaved timing, a correctness gate, a measured roofline."""
