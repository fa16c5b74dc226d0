//! Whether a node serves, and what it counts, as its admin HTTP says.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// `Ok` when `GET /readyz` answers 200, else what it says.
pub(super) async fn ask(admin: SocketAddr) -> Result<(), String> {
    get(admin, "/readyz").await.map(|_| ())
}

/// What `GET path` answers with, if that is 200; else what it says.
pub(super) async fn get(admin: SocketAddr, path: &str) -> Result<String, String> {
    let asked = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    match tokio::time::timeout(ANSWER_MAX, asked).await {
        Ok(Ok(answer)) => {
            let body = answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body).to_owned();
            if answer.starts_with("HTTP/1.1 200") { Ok(body) } else { Err(body) }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
