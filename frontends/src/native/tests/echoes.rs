//! Echoes over the wire, and connections that bring none.

use tidelog_consensus::transport::ECHO_BYTES_MAX;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_brings_back_what_was_sent_and_says_how_long_a_peer_took() {
    let served = serve();
    let mut pipeline = Client::connect(&served).await.greet().await;

    let direct = pipeline.ask(Request::Echo { through: None }, b"hello").await;
    assert_eq!(
        (direct.answer, direct.payload.as_ref()),
        (Ok(Answer::Echoed { peer_ns: None }), &b"hello"[..])
    );

    let through = pipeline.ask(Request::Echo { through: Some(NodeId(8)) }, b"hello").await;
    assert_eq!(through.answer, Ok(Answer::Echoed { peer_ns: Some(90_000) }));
    assert_eq!(through.payload.as_ref(), b"hello");

    let lost = pipeline.ask(Request::Echo { through: Some(NodeId(9)) }, b"hello").await;
    let refused = lost.answer.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotReady);
    assert!(refused.message.contains("node 9"), "{refused}");

    let large = pipeline.ask(Request::Echo { through: None }, &vec![1; ECHO_BYTES_MAX + 1]).await;
    assert_eq!(large.answer.unwrap_err().code, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_client_that_never_greets_is_sent_away() {
    let served = serve();
    let client = Client::connect(&served).await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, u64::from(CloseCode::NotGreeted.number()), "{reason}");
}
