//! Doors for the fuzz targets: the offer that a raft snapshot carries.

use bytes::Bytes;

use super::offer::OfferData;

/// An offer, decoded and encoded again.
#[must_use]
pub fn offer(bytes: &[u8]) -> Option<Bytes> {
    OfferData::decode(bytes).map(|offer| offer.encode())
}
