//! Whether a node serves, as its admin HTTP says: `GET /readyz` answers 200 once every group has a leader.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::layout::Layout;
use super::process::NodeProcess;
use crate::error::CliError;

/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Time between two questions to a node that is not ready.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 16 << 10;
/// Most characters of an answer that are shown.
const SHOWN_MAX: usize = 200;

/// What a node said.
#[derive(Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    NotYet(String),
}

/// Waits until every node of `nodes` is ready, but at most `seconds`.
///
/// # Errors
/// - [`CliError::NodeEnded`]: a process ended meanwhile; the others go on.
/// - [`CliError::NotReady`]: the time is over; all processes go on.
pub(crate) async fn wait(layout: &Layout, nodes: &[u64], seconds: u64) -> Result<(), CliError> {
    let mut waiting_for = String::from("no node has answered");
    let asked = async {
        for node in nodes {
            let (process, admin) = (layout.process(*node), layout.addresses(*node)?.admin);
            wait_for(*node, &process, admin, &mut waiting_for).await?;
        }
        Ok(())
    };
    let result = tokio::time::timeout(Duration::from_secs(seconds), asked).await;
    result.unwrap_or(Err(CliError::NotReady { seconds, waiting_for }))
}

/// Waits until one node is ready, but at most `seconds`; as [`wait`].
pub(crate) async fn wait_one(
    node: u64,
    process: &NodeProcess,
    admin: SocketAddr,
    seconds: u64,
) -> Result<(), CliError> {
    let mut waiting_for = String::from("it has not answered");
    let limit = Duration::from_secs(seconds);
    let asked = tokio::time::timeout(limit, wait_for(node, process, admin, &mut waiting_for)).await;
    asked.unwrap_or(Err(CliError::NotReady { seconds, waiting_for }))
}

async fn wait_for(
    node: u64,
    process: &NodeProcess,
    admin: SocketAddr,
    waiting_for: &mut String,
) -> Result<(), CliError> {
    loop {
        if process.running()?.is_none() {
            return Err(process.ended());
        }
        match ask(admin).await {
            Readiness::Ready => return Ok(()),
            Readiness::NotYet(why) => *waiting_for = format!("node {node}: {why}"),
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn ask(admin: SocketAddr) -> Readiness {
    let asked = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    match tokio::time::timeout(ANSWER_MAX, asked).await {
        Ok(Ok(answer)) => read(&answer),
        Ok(Err(error)) => Readiness::NotYet(error.to_string()),
        Err(_) => Readiness::NotYet(format!("{admin} did not answer in {} s", ANSWER_MAX.as_secs())),
    }
}

/// Reads an HTTP answer: status 200 is ready, anything else says in its body what is missing.
fn read(answer: &[u8]) -> Readiness {
    let text = String::from_utf8_lossy(answer);
    let status = text.split_ascii_whitespace().nth(1);
    if text.starts_with("HTTP/1.1 ") && status == Some("200") {
        return Readiness::Ready;
    }
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Readiness::NotYet(body.chars().take(SHOWN_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_200_is_ready_and_any_other_says_why() {
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r\n{}"), Readiness::Ready);
        let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nno leader";
        assert_eq!(read(answer), Readiness::NotYet("no leader".to_owned()));
        for noise in [&b""[..], b"200", b"SSH-2.0 200\r\n", &[0xff; 64]] {
            assert!(matches!(read(noise), Readiness::NotYet(_)), "{noise:?}");
        }
    }
}
