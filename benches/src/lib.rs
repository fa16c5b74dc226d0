//! Benchmarks, each beside the floor of the machine it runs on.
