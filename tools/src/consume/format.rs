//! How a record is written: its value as it is, or an object a line.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use tidelog_wire::ids::{Offset, Partition, TimestampMs};

use crate::values::{rfc3339, utf8};

/// A record as `--json` writes it. What is not UTF-8 has its bytes in base64, in a field whose name says so.
pub(crate) struct RecordLine<'a> {
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
    pub(crate) timestamp: TimestampMs,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

impl Serialize for RecordLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("partition", &self.partition)?;
        map.serialize_entry("offset", &self.offset)?;
        map.serialize_entry("timestamp", &rfc3339(self.timestamp))?;
        bytes_entry(&mut map, "key", "key_base64", self.key)?;
        bytes_entry(&mut map, "value", "value_base64", self.value)?;
        let headers: Vec<HeaderLine<'_>> =
            self.headers.iter().map(|(key, value)| HeaderLine { key, value: *value }).collect();
        map.serialize_entry("headers", &headers)?;
        map.end()
    }
}

/// A header: an object of its own, since keys may repeat and their order counts.
struct HeaderLine<'a> {
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

impl Serialize for HeaderLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        bytes_entry(&mut map, "key", "key_base64", Some(self.key))?;
        bytes_entry(&mut map, "value", "value_base64", self.value)?;
        map.end()
    }
}

fn bytes_entry<M: serde::ser::SerializeMap>(
    map: &mut M,
    text_name: &'static str,
    base64_name: &'static str,
    bytes: Option<&[u8]>,
) -> Result<(), M::Error> {
    match bytes.map(|bytes| (bytes, utf8(bytes))) {
        None => map.serialize_entry(text_name, &()),
        Some((_, Some(text))) => map.serialize_entry(text_name, text),
        Some((bytes, None)) => map.serialize_entry(base64_name, &base64(bytes)),
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let joined = group.iter().fold(0_u32, |joined, byte| (joined << 8) | u32::from(*byte));
        let missing = 3 - group.len();
        let joined = (0..missing).fold(joined, |joined, _| joined << 8);
        for place in 0..4 {
            let letter =
                usize::try_from((joined >> (18 - 6 * place)) & 63).ok().and_then(|at| ALPHABET.get(at));
            match letter {
                Some(letter) if place < 4 - missing => text.push(char::from(*letter)),
                Some(_) | None => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn a_record_is_one_object_with_text_as_text_and_bytes_as_base64() {
        let line = RecordLine {
            partition: Partition(1),
            offset: Offset(7),
            timestamp: TimestampMs(0),
            key: Some(b"UA"),
            value: Some(&[0xff]),
            headers: vec![(b"k", None), (b"k", Some(b"v"))],
        };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            "{\"partition\":1,\"offset\":7,\"timestamp\":\"1970-01-01T00:00:00Z\",\"key\":\"UA\",\
             \"value_base64\":\"/w==\",\"headers\":[{\"key\":\"k\",\"value\":null},{\"key\":\"k\",\"value\":\"v\"}]}"
        );
    }
}
