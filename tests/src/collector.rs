//! A stand-in of an OpenTelemetry collector: takes what is sent over OTLP and keeps the bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Larger than any batch a test causes.
const BODY_BYTES_MAX: usize = 16 << 20;

type Received = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Listens until the test's runtime ends.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    received: Received,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let received = Received::default();
        let keep = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&keep)));
            }
        });
        Self { address, received }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether a message to this path (`/v1/traces`) held these bytes. Names and ids stand in protobuf as
    /// they are.
    pub fn got(&self, path: &str, bytes: &[u8]) -> bool {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |body: &[u8]| body.windows(bytes.len()).any(|window| window == bytes);
        received.iter().any(|(to, body)| to == path && holds(body))
    }
}

/// As much HTTP as an exporter speaks: requests with a length, one after the other.
async fn serve(stream: TcpStream, received: Received) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|count| *count > 0)?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await.ok().filter(|count| *count > 0)?;
            if header.trim().is_empty() {
                break;
            }
            let (name, value) = header.split_once(':')?;
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok().filter(|length| *length <= BODY_BYTES_MAX)?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        received.lock().unwrap_or_else(PoisonError::into_inner).push((path, body));
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.ok()?;
    }
}
