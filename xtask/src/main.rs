//! The gate and other chores of the project.
fn main() {}
