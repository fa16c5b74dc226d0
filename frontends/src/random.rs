//! Random numbers, from the system.

use std::io;

/// A number that nobody else draws.
pub(crate) fn number() -> io::Result<u128> {
    let mut bytes = [0; 16];
    // Up to 256 bytes come whole or not at all.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u128::from_be_bytes(bytes))
}
