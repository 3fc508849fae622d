//! Requests written byte by byte, for what no HTTP client would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the gate, spoken to in bytes.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
}

/// The first answer on a raw connection.
#[derive(Debug)]
pub struct RawAnswer {
    /// 0: the connection was closed without an answer.
    pub status: u16,
    pub text: String,
}

impl Raw {
    pub async fn connect(address: &str) -> Self {
        Self { stream: TcpStream::connect(address).await.expect("the service accepts") }
    }

    /// The service may have closed by then; a test sees that in the answer.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Ends our side.
    pub async fn finish(&mut self) {
        drop(self.stream.shutdown().await);
    }

    /// Reads until the connection ends or an answer is complete.
    pub async fn answer(&mut self) -> RawAnswer {
        let mut bytes = Vec::new();
        let read = async {
            let mut chunk = [0; 4096];
            while !complete(&bytes) {
                match self.stream.read(&mut chunk).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                }
            }
        };
        let timely = tokio::time::timeout(PATIENCE, read).await.is_ok();
        assert!(timely, "no answer within {PATIENCE:?}: {}", String::from_utf8_lossy(&bytes));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        RawAnswer { status, text }
    }
}

impl RawAnswer {
    pub fn is_problem(&self) -> bool {
        let lower = self.text.to_ascii_lowercase();
        lower.contains("content-type: application/problem+json") && lower.contains("\"error\":{")
    }
}

/// Head and as much body as it announces.
fn complete(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}
