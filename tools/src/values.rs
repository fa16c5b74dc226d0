//! Values of the command line that are more than a number or a text.

use std::fmt;
use std::str::FromStr;

use tidelog_wire::ids::{Offset, TimestampMs};

/// Longest name of a channel, in bytes: what Kafka's clients allow.
const NAME_BYTES_MAX: usize = 249;

/// A value that its flag does not take.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadValue {
    #[error("a name is 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` or `-`, and neither `.` nor `..`")]
    Name,
    #[error("one byte is expected, or `\\t` for a tabulator")]
    Delimiter,
    #[error(
        "`earliest`, `latest`, an offset, or a time as RFC 3339 writes it (2013-01-01T10:00:00Z) is expected"
    )]
    Start,
    #[error("a number of bytes is expected, such as 65536, 64KiB or 16MiB")]
    Size,
}

/// A name that a channel may have. Checked here so that a typing error costs no round trip; nodes check it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChannelName(String);

impl ChannelName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl FromStr for ChannelName {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let length = (1..=NAME_BYTES_MAX).contains(&text.len());
        let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if length && letters && text != "." && text != ".." {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadValue::Name)
        }
    }
}

/// What separates the columns of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delimiter(pub(crate) u8);

impl FromStr for Delimiter {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.as_bytes() {
            [byte] => Ok(Self(*byte)),
            b"\\t" => Ok(Self(b'\t')),
            _ => Err(BadValue::Delimiter),
        }
    }
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the log start.
    Earliest,
    /// At the high watermark.
    Latest,
    /// At this offset.
    At(Offset),
    /// At the first record with this time or a later one.
    Time(TimestampMs),
}

impl FromStr for Start {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(offset) = text.parse() {
            return Ok(Self::At(Offset(offset)));
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| BadValue::Start)?;
        Ok(Self::Time(TimestampMs(time.as_millisecond())))
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let (number, shift) = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
            .iter()
            .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))
            .unwrap_or((text, 0));
        let number: u64 = number.trim_end().parse().map_err(|_| BadValue::Size)?;
        number.checked_mul(1 << shift).map(Self).ok_or(BadValue::Size)
    }
}

/// A time as RFC 3339 writes it; the number itself where no calendar reaches.
pub(crate) fn rfc3339(time: TimestampMs) -> String {
    jiff::Timestamp::from_millisecond(time.get())
        .map_or_else(|_| format!("{} ms", time.get()), |time| time.to_string())
}

/// Bytes as text if they are UTF-8.
pub(crate) fn utf8(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_word_an_offset_or_a_time() {
        assert_eq!("earliest".parse(), Ok(Start::Earliest));
        assert_eq!("latest".parse(), Ok(Start::Latest));
        assert_eq!("17".parse(), Ok(Start::At(Offset(17))));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Start::Time(TimestampMs(1_000))));
        assert_eq!("-1".parse::<Start>(), Err(BadValue::Start));
    }

    #[test]
    fn sizes_have_units_and_do_not_overflow() {
        assert_eq!("64KiB".parse(), Ok(Size(65_536)));
        assert_eq!("7".parse(), Ok(Size(7)));
        assert_eq!("99999999999GiB".parse::<Size>(), Err(BadValue::Size));
        assert_eq!("1KB".parse::<Size>(), Err(BadValue::Size));
    }

    #[test]
    fn names_are_kept_to_what_every_client_can_say() {
        assert!("flights.2013_a-b".parse::<ChannelName>().is_ok());
        for bad in ["", ".", "..", "a b", "a/b", "ü", &"x".repeat(250)] {
            assert_eq!(bad.parse::<ChannelName>(), Err(BadValue::Name), "{bad}");
        }
    }
}
