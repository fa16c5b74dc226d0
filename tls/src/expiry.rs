//! Until when a certificate is valid, read out of its DER.
//!
//! The TLS library checks validity at every handshake, but does not say when it will end. What is read here is only told:
//! it decides nothing. So whatever cannot be read is "no end known".
//!
//! ```text
//! Certificate = SEQUENCE { TBS, … }     TBS = SEQUENCE { [0] version, INTEGER serial, SEQUENCE algorithm,
//! SEQUENCE issuer, SEQUENCE validity { not before, not after }, … }
//! ```

use rustls::pki_types::CertificateDer;
use tidelog_wire::ids::TimestampMs;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Certificates without an end say a year from here on.
const NEVER_FROM_YEAR: i64 = 4096;
const DAY_MS: i64 = 86_400_000;

/// When `cert` expires; `None` if it does not, or if that cannot be read.
pub(crate) fn of(cert: &CertificateDer<'_>) -> Option<TimestampMs> {
    let (tag, certificate) = Der(cert.as_ref()).next()?;
    let (tbs_tag, tbs) = (tag == SEQUENCE).then(|| Der(certificate).next())??;
    let mut fields = (tbs_tag == SEQUENCE).then_some(Der(tbs))?;
    let (first, _) = fields.next()?;
    // The version is left out in certificates of version 1: then this was the serial number.
    let before_validity = if first == VERSION { 3 } else { 2 };
    let (tag, validity) = fields.nth(before_validity)?;
    let (kind, not_after) = (tag == SEQUENCE).then(|| Der(validity).nth(1))??;
    time(kind, not_after)
}

fn time(kind: u8, text: &[u8]) -> Option<TimestampMs> {
    let (year, rest) = match kind {
        UTC_TIME => {
            let year = digits(text.get(..2)?)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (digits(text.get(..4)?)?, text.get(4..)?),
        _ => return None,
    };
    let part = |at: usize| digits(rest.get(at..at + 2)?);
    let (month, day) = (part(0)?, part(2)?);
    let seconds = part(4)? * 3600 + part(6)? * 60 + part(8)?;
    let is_whole = rest.len() == 11 && rest.ends_with(b"Z") && (1..=12).contains(&month);
    let dated = is_whole && (1..=31).contains(&day) && year < NEVER_FROM_YEAR;
    dated.then(|| TimestampMs(days_since_1970(year, month, day) * DAY_MS + seconds * 1000))
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte.saturating_sub(b'0')))
    })
}

/// Days of the Gregorian calendar, counted in years that begin in March, so that the leap day is the last.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year / 4 - year / 100 + year / 400;
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// The elements of a DER value: tag and content of each.
struct Der<'a>(&'a [u8]);

impl<'a> Iterator for Der<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (tag, rest) = self.0.split_first()?;
        let (first, mut rest) = rest.split_first()?;
        let mut length = usize::from(*first);
        if *first >= 0x80 {
            // The long form: how many bytes of length follow. Nothing here is longer than two of them can say.
            let (bytes, behind) = rest.split_at_checked(usize::from(*first & 0x7f))?;
            (length, rest) = match bytes {
                [low] => (usize::from(*low), behind),
                [high, low] => (usize::from(*high) * 256 + usize::from(*low), behind),
                _ => return None,
            };
        }
        let (content, behind) = rest.split_at_checked(length)?;
        self.0 = behind;
        Some((*tag, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_kinds_are_read() {
        assert_eq!(time(UTC_TIME, b"700101000000Z"), Some(TimestampMs(0)));
        assert_eq!(time(UTC_TIME, b"000229120000Z"), Some(TimestampMs(951_825_600_000)));
        assert_eq!(time(GENERALIZED_TIME, b"20991231235959Z"), Some(TimestampMs(4_102_444_799_000)));
        assert_eq!(time(GENERALIZED_TIME, b"40960101000000Z"), None, "never");
        for wrong in [&b""[..], b"7", b"701301000000Z", b"70010100000Z", b"700101000000+", b"70x101000000Z"] {
            assert_eq!(time(UTC_TIME, wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_stumble() {
        let authority = crate::Authority::create(tidelog_wire::ids::ClusterId(7)).unwrap();
        let end = TimestampMs(1_900_000_000_000);
        let pair = authority.expiring(end).issue_client("c").unwrap();
        let file = crate::PemFile { path: std::path::Path::new("c.pem"), text: &pair.cert };
        let cert = crate::credentials::certificate(&file).unwrap();
        assert_eq!(of(&cert), Some(end));
        for length in 0..cert.len() {
            assert_eq!(of(&CertificateDer::from(&cert[..length])), None, "cut after {length}");
        }
        let mut bytes = cert.to_vec();
        for at in 0..bytes.len() {
            bytes[at] ^= 0xff;
            let _whatever = of(&CertificateDer::from(&bytes[..]));
            bytes[at] ^= 0xff;
        }
    }
}
