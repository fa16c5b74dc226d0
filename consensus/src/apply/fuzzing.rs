//! Doors for the fuzz targets: the state of a data group's machine.

/// The state of a data machine, decoded and encoded again.
#[must_use]
pub fn data_state(bytes: &[u8]) -> Option<Vec<u8>> {
    super::data_bytes::DataState::decode(bytes).ok().map(|state| state.encode())
}
