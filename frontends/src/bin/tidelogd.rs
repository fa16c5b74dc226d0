//! The tidelog server.
fn main() {}
