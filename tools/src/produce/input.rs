//! From bytes to records: one a line, on a thread of its own, since reading may block for ever.
//!
//! A chunk of lines is handed over when it is full, when it is large, or when no more input is waiting, so that
//! `tail -f … | tidelog produce …` sends each line as it comes. At most [`CHUNKS_WAITING`] chunks wait; then reading waits.

use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Chunks that were read and not yet taken.
const CHUNKS_WAITING: usize = 4;
/// Bytes of values after which a chunk is handed over, well below the smallest usual batch limit.
const CHUNK_BYTES: usize = 256 << 10;
/// Longest line: what the largest batch that any node takes could carry.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// Which part of a line is the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyColumn {
    /// From 1.
    pub(crate) column: u32,
    pub(crate) delimiter: u8,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Bytes,
}

/// Why reading ended early. Everything before was handed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("line {line}: {source}")]
    Read { line: u64, source: io::Error },
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes")]
    TooLong { line: u64 },
    #[error("line {line} has no column {column}")]
    NoColumn { line: u64, column: u32 },
}

/// Lines of an input, one after the other.
pub(crate) struct Lines<R> {
    input: BufReader<R>,
    key: Option<KeyColumn>,
    line: u64,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(input: R, key: Option<KeyColumn>) -> Self {
        Self { input: BufReader::with_capacity(READ_BYTES, input), key, line: 0 }
    }

    /// From the next line on, keys are in this column.
    pub(crate) fn set_key(&mut self, key: Option<KeyColumn>) {
        self.key = key;
    }

    /// The next line without its newline; none at the end. A last line without a newline counts.
    pub(crate) fn read(&mut self) -> Result<Option<Line>, InputError> {
        self.line += 1;
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes);
        match read.map_err(|source| InputError::Read { line: self.line, source })? {
            0 => return Ok(None),
            _ if bytes.last() == Some(&b'\n') => {
                bytes.pop();
            }
            read if u64::try_from(read).unwrap_or(u64::MAX) > LINE_BYTES_MAX => {
                return Err(InputError::TooLong { line: self.line });
            }
            _ => {}
        }
        let value = Bytes::from(bytes);
        let key = self.key.map(|key| self.key_of(&value, key)).transpose()?;
        Ok(Some(Line { key, value }))
    }

    fn key_of(&self, value: &Bytes, key: KeyColumn) -> Result<Bytes, InputError> {
        let place = usize::try_from(key.column).unwrap_or(usize::MAX).saturating_sub(1);
        let column = value.split(|byte| *byte == key.delimiter).nth(place);
        let column = column.ok_or(InputError::NoColumn { line: self.line, column: key.column })?;
        Ok(value.slice_ref(column))
    }

    /// Whether reading on may have to wait for whoever writes the input.
    fn may_wait(&self) -> bool {
        self.input.buffer().is_empty()
    }
}

/// Reads `lines` on a thread of its own and hands over chunks of at most `records_max` lines.
///
/// The channel ends with the input, or after an error. Dropping the receiver ends the thread at its next chunk.
pub(crate) fn read_ahead<R: Read + Send + 'static>(
    mut lines: Lines<R>,
    records_max: usize,
) -> io::Result<mpsc::Receiver<Result<Vec<Line>, InputError>>> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
    std::thread::Builder::new().name("input".to_owned()).spawn(move || {
        loop {
            let (chunk, ended) = read_chunk(&mut lines, records_max);
            if !chunk.is_empty() && chunks.blocking_send(Ok(chunk)).is_err() {
                return;
            }
            match ended {
                None => {}
                Some(Ok(())) => return,
                Some(Err(error)) => {
                    // Nobody listens any more: then nobody needs the reason either.
                    drop(chunks.blocking_send(Err(error)));
                    return;
                }
            }
        }
    })?;
    Ok(receiver)
}

/// One chunk, and how the input ended if it did.
fn read_chunk<R: Read>(
    lines: &mut Lines<R>,
    records_max: usize,
) -> (Vec<Line>, Option<Result<(), InputError>>) {
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    while chunk.len() < records_max && bytes < CHUNK_BYTES {
        match lines.read() {
            Ok(Some(line)) => {
                bytes += line.value.len();
                chunk.push(line);
            }
            Ok(None) => return (chunk, Some(Ok(()))),
            Err(error) => return (chunk, Some(Err(error))),
        }
        if lines.may_wait() {
            break;
        }
    }
    (chunk, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(input: &'static [u8]) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(input, None);
        std::iter::from_fn(|| lines.read().unwrap()).map(|line| line.value.to_vec()).collect()
    }

    #[test]
    fn a_record_is_a_line_without_its_newline_whatever_its_bytes() {
        assert_eq!(values(b"a\n\nb\n"), [&b"a"[..], b"", b"b"]);
        assert_eq!(values(b"a\nlast"), [&b"a"[..], b"last"], "a last line without a newline counts");
        assert_eq!(
            values(b"\xff\x00\r\n"),
            [&b"\xff\x00\r"[..]],
            "neither text nor other line ends are assumed"
        );
        assert!(values(b"").is_empty());
    }

    #[test]
    fn the_key_is_a_column_and_a_line_without_it_is_an_error() {
        let key = Some(KeyColumn { column: 2, delimiter: b';' });
        let mut lines = Lines::new(&b"a;b;c\nx;\nnone\n"[..], key);
        assert_eq!(lines.read().unwrap().unwrap().key, Some(Bytes::from_static(b"b")));
        assert_eq!(lines.read().unwrap().unwrap().key, Some(Bytes::new()));
        let error = lines.read().unwrap_err();
        assert_eq!(error.to_string(), "line 3 has no column 2");
    }

    #[test]
    fn chunks_hold_at_most_what_was_asked_and_everything_before_an_error() {
        let key = Some(KeyColumn { column: 2, delimiter: b',' });
        let lines = Lines::new(&b"1,a\n2,b\n3,c\nbad\n5,e\n"[..], key);
        let mut chunks = read_ahead(lines, 2).unwrap();
        assert_eq!(chunks.blocking_recv().unwrap().unwrap().len(), 2);
        assert_eq!(chunks.blocking_recv().unwrap().unwrap().len(), 1);
        assert!(matches!(chunks.blocking_recv(), Some(Err(InputError::NoColumn { line: 4, column: 2 }))));
        assert!(chunks.blocking_recv().is_none());
    }

    /// An input that gives one line and then blocks until it is dropped.
    struct Slow(std::sync::mpsc::Receiver<()>, bool);

    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.1, true) {
                return self.0.recv().map_or(Ok(0), |()| Ok(0));
            }
            (&b"now\n"[..]).read(into)
        }
    }

    #[test]
    fn a_line_is_handed_over_when_no_more_input_is_waiting() {
        let (end, ended) = std::sync::mpsc::sync_channel(0);
        let mut chunks = read_ahead(Lines::new(Slow(ended, false), None), 1_000).unwrap();
        assert_eq!(chunks.blocking_recv().unwrap().unwrap().len(), 1);
        drop(end);
        assert!(chunks.blocking_recv().is_none());
    }
}
