//! Bytes as they come through a stream of the native protocol, from a client and from a node.
//!
//! Whatever decodes must encode to bytes that decode to the same.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use tidelog_wire::protocol::{AnswerFrame, Frame, FrameLimits, RequestFrame, encode_answer, encode_request};

fuzz_target!(|input: &[u8]| {
    let mut received = BytesMut::from(input);
    while let Ok(Some(frame)) = Frame::take(&mut received, FrameLimits::ANSWERS) {
        if let Ok(request) = RequestFrame::decode(frame.clone()) {
            let mut out = BytesMut::new();
            encode_request(request.correlation, &request.request, request.payload.len(), &mut out)
                .expect("what was received can be sent");
            let again = RequestFrame::decode(whole(out, &request.payload)).expect("it decodes again");
            assert_eq!(again, request);
        }
        if let Ok(answer) = AnswerFrame::decode(frame) {
            let mut out = BytesMut::new();
            encode_answer(answer.correlation, &answer.answer, answer.payload.len(), &mut out)
                .expect("what was received can be sent");
            let again = AnswerFrame::decode(whole(out, &answer.payload)).expect("it decodes again");
            assert_eq!(again, answer);
        }
    }
});

fn whole(mut head: BytesMut, payload: &Bytes) -> Frame {
    head.extend_from_slice(payload);
    Frame::take(&mut head, FrameLimits::ANSWERS).expect("it is a frame").expect("it is whole")
}
