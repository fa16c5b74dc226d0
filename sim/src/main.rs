//! Runs simulations by seed.
fn main() {}
