//! Puts checksums right, so that a fuzzer gets behind them.

/// The checksums of a segment file: header, frames as far as their lengths lead, footer.
pub fn segment(bytes: &mut [u8]) {
    header(bytes);
    for position in frames(bytes) {
        frame(bytes, position);
    }
    footer(bytes);
}

/// The checksum of a segment header.
pub fn header(bytes: &mut [u8]) {
    if bytes.len() >= 80 {
        let crc = crc32c::crc32c(&bytes[..76]);
        bytes[76..80].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Where frames begin, as their lengths lead from the first one on.
pub fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 80;
    while let Some(head) = bytes.get(at..at + 48) {
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if (len != 48 && len < 109) || bytes.get(at..).is_none_or(|rest| rest.len() < len) {
            break;
        }
        found.push(at);
        at += len;
    }
    found
}

/// The checksums of the frame at `position` and of the batch in it.
pub fn frame(bytes: &mut [u8], position: usize) {
    let Some(head) = bytes.get(position..position + 48) else { return };
    let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let Some(frame) = bytes.get_mut(position..position.saturating_add(len)) else { return };
    let (header, batch) = frame.split_at_mut(48.min(len));
    if batch.len() >= 21 {
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    if header.len() == 48 {
        let crc = crc32c::crc32c(&header[4..]);
        let crc = crc32c::crc32c_append(crc, &(position as u64).to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &batch[..batch.len().min(21)]);
        header[..4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The checksum of index and footer.
pub fn footer(bytes: &mut [u8]) {
    let Some(begin) = bytes.len().checked_sub(64) else { return };
    if bytes[begin..begin + 8] != *b"TIDEFOOT" {
        return;
    }
    let index = bytes[begin + 48..begin + 56].try_into().map_or(u64::MAX, u64::from_le_bytes);
    let end = bytes.len() - 4;
    if let Some(checked) = usize::try_from(index).ok().and_then(|index| bytes.get(index..end)) {
        let crc = crc32c::crc32c(checked);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The checksum at the end of a checkpoint.
pub fn checkpoint(bytes: &mut [u8]) {
    if let Some(end) = bytes.len().checked_sub(4) {
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
    }
}
