//! Clients on a bad line: a body that comes a few bytes at a time, or stops half-way; over raw sockets.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::upload::{Answer, Endpoint};

/// Longer than the gate's own patience with a body.
const PATIENCE: Duration = Duration::from_secs(120);

/// Of an answer; a verdict has a few kilobytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

const ENDPOINT: Endpoint = Endpoint::Images;

/// Between two pieces of a body.
const PAUSE: Duration = Duration::from_millis(50);

/// How a body comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// All of it, in small pieces, spread over this long.
    Trickle(Duration),
    /// The first half, and then nothing more, on an open connection.
    Stop,
}

/// Sends each upload over a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// `127.0.0.1:8080`
    pub(crate) address: String,
    pub(crate) key: String,
}

impl Client {
    /// What was answered, and when the last byte had been sent; None where it never was.
    pub(crate) async fn send(&self, manner: Manner, picture: &[u8]) -> (Option<Instant>, Answer) {
        let mut sent = None;
        let sending = self.exchange(manner, picture, &mut sent);
        let answer = match tokio::time::timeout(PATIENCE, sending).await {
            Err(_) => Answer::lost("timed out"),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Answer::lost("not connected")
            }
            Ok(Err(_)) => Answer::lost("connection broken"),
            Ok(Ok(bytes)) => read(&bytes).unwrap_or_else(|| Answer::lost("connection closed")),
        };
        (sent, answer)
    }

    async fn exchange(
        &self,
        manner: Manner,
        picture: &[u8],
        sent: &mut Option<Instant>,
    ) -> io::Result<Vec<u8>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.into_split();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            ENDPOINT.path(),
            self.address,
            self.key,
            ENDPOINT.content_type(),
            picture.len()
        );
        let writing = async {
            writer.write_all(head.as_bytes()).await?;
            match manner {
                Manner::Trickle(over) => {
                    let pieces = usize::try_from(over.as_millis() / PAUSE.as_millis()).unwrap_or(1).max(1);
                    for (at, piece) in picture.chunks(picture.len().div_ceil(pieces).max(1)).enumerate() {
                        if at > 0 {
                            tokio::time::sleep(PAUSE).await;
                        }
                        writer.write_all(piece).await?;
                    }
                    *sent = Some(Instant::now());
                }
                Manner::Stop => writer.write_all(&picture[..picture.len() / 2]).await?,
            }
            Ok::<_, io::Error>(())
        };
        // An answer may come before the body is through, and the rest may then find no reader.
        let mut answer = Vec::new();
        let reading = async {
            let mut piece = [0; 4096];
            loop {
                match reader.read(&mut piece).await {
                    Ok(0) => return Ok(()),
                    // Closed with unread bytes of ours: the answer may be there all the same.
                    Err(error) if answer.is_empty() => return Err(error),
                    Err(_) => return Ok(()),
                    Ok(read) if answer.len() + read > ANSWER_BYTES_MAX => return Ok(()),
                    Ok(read) => answer.extend_from_slice(&piece[..read]),
                }
            }
        };
        let written_then_wait = async {
            match writing.await {
                // What matters is the answer; that there is none, the reader finds out.
                Ok(()) | Err(_) => std::future::pending::<()>().await,
            }
        };
        tokio::select! {
            read = reading => read?,
            () = written_then_wait => {}
        }
        Ok(answer)
    }
}

/// An HTTP/1.1 answer with its length or up to the connection's end. None: not a whole one.
fn read(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let body = &bytes[end + 4..];
    let mut lines = head.lines();
    let status = lines.next()?.split_whitespace().nth(1)?.parse().ok()?;
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let header = |name: &str| {
        headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    if header("content-length")
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: usize| body.len() < length)
    {
        return None;
    }
    Some(Answer::read(ENDPOINT, status, header("retry-after"), header("x-request-id").is_some(), body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::Outcome;

    #[test]
    fn a_raw_answer_is_read_whole_or_not_at_all() {
        let whole = b"HTTP/1.1 408 Request Timeout\r\nX-Request-Id: 7\r\ncontent-length: 34\r\n\r\n{\"error\":{\"code\":\"body_too_slow\"}}";
        let answer = read(whole).expect("it is whole");
        assert_eq!(answer.outcome, Outcome::Refused(408, "body_too_slow".to_owned()));
        assert!(answer.faults.is_empty(), "{:?}", answer.faults);
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), None, "cut at {cut}");
        }
        assert_eq!(read(b"SSH-2.0-x\r\n\r\n\r\n"), None);
    }

    #[tokio::test]
    async fn a_trickled_body_arrives_and_counts_from_its_last_byte() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"END") {
                let mut piece = [0; 64];
                let read = stream.read(&mut piece).await.expect("reads");
                bytes.extend_from_slice(&piece[..read]);
            }
            let answer = b"HTTP/1.1 200 OK\r\nx-request-id: 1\r\ncontent-length: 15\r\n\r\n{\"cached\":true}";
            stream.write_all(answer).await.expect("writes");
            bytes
        });
        let client = Client { address, key: "k".to_owned() };
        let (sent, answer) = client.send(Manner::Trickle(Duration::from_millis(150)), b"PICTURE END").await;
        assert_eq!(answer.outcome, Outcome::Recalled);
        assert!(sent.is_none_or(|sent| sent.elapsed() < Duration::from_secs(60)));
        let request = server.await.expect("it ends");
        assert!(String::from_utf8_lossy(&request).contains("content-length: 11"));
    }
}
