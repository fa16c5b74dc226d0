use std::collections::VecDeque;

use bytes::BufMut as _;
use proptest::prelude::*;
use tidelog_wire::protocol::{FrameLimits, Request, encode_request};

use super::*;

/// A stream whose bytes come in the given pieces.
struct Pieces(VecDeque<Bytes>);

impl Source for Pieces {
    async fn chunk(&mut self, max: usize) -> Result<Option<Bytes>, StreamEnd> {
        let Some(mut piece) = self.0.pop_front() else { return Ok(None) };
        if piece.len() > max {
            self.0.push_front(piece.split_off(max));
        }
        Ok(Some(piece))
    }
}

fn pieces(mut bytes: Bytes, sizes: &[usize]) -> Pieces {
    let mut pieces = VecDeque::new();
    for size in sizes {
        pieces.push_back(bytes.split_to((*size).min(bytes.len())));
    }
    pieces.push_back(bytes);
    pieces.retain(|piece| !piece.is_empty());
    Pieces(pieces)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    /// However the network cuts a stream, the same requests come out, and no more is held than is under way.
    #[test]
    fn requests_come_out_whole_however_the_stream_is_cut(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8),
        sizes in proptest::collection::vec(1_usize..200, 0..40),
    ) {
        let mut bytes = BytesMut::new();
        let log = tidelog_wire::ids::LogId {
            generation: tidelog_wire::ids::Generation(1),
            partition: tidelog_wire::ids::Partition(0),
        };
        for (number, payload) in (0..).zip(&payloads) {
            encode_request(number, &Request::Produce { log }, payload.len(), &mut bytes).unwrap();
            bytes.put_slice(payload);
        }
        let mut reader = FrameReader::new(pieces(bytes.freeze(), &sizes), FrameLimits::REQUESTS);
        let allowance = Arc::new(Semaphore::new(1 << 20));
        let taken = run(async {
            let mut taken = Vec::new();
            while let Some((frame, share)) = reader.next(Some(&allowance)).await.unwrap() {
                let request = RequestFrame::decode(frame).unwrap();
                assert!(share.is_some_and(|share| share.num_permits() > request.payload.len()));
                taken.push((request.correlation, request.payload.to_vec()));
            }
            taken
        });
        let expected: Vec<_> = (0..).zip(payloads).collect();
        prop_assert_eq!(taken, expected);
        prop_assert_eq!(allowance.available_permits(), 1 << 20);
    }

    /// Whatever comes, the reader ends: with frames, with an error that has a code, or with the stream.
    #[test]
    fn hostile_bytes_end_in_a_typed_error(bytes in proptest::collection::vec(any::<u8>(), 0..400), sizes in proptest::collection::vec(1_usize..50, 0..20)) {
        let limits = FrameLimits { header_bytes_max: 64, payload_bytes_max: 128 };
        let mut reader = FrameReader::new(pieces(bytes.into(), &sizes), limits);
        run(async {
            loop {
                match reader.next(None).await {
                    Ok(Some((frame, _))) => drop(RequestFrame::decode(frame)),
                    Ok(None) => break,
                    Err(StreamEnd::Broken(error)) => {
                        assert!(error.to_string().starts_with("E15"), "{error}");
                        break;
                    }
                    Err(StreamEnd::Gone) => panic!("this stream never goes away"),
                }
            }
        });
    }
}
