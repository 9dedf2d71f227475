"""Benchmarks that can be believed: real layers, peers, interleaved timing, a correctness gate, a measured roofline."""
