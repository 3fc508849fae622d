//! Fetching images from hosts that mean ill: a network of its own on loopback, with a resolver that says what
//! the test wants and a rule that takes this network for the public one.

#![expect(clippy::unwrap_used, reason = "this is all tests")]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shieldgate::fetch::{Addresses, FetchConfig, FetchError, Fetcher, Public, Resolver, Rule};

/// "Public" here: where the tests' servers listen.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// "Inside" here: listened on as well, so that a connection would be seen.
const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

const BYTES_MAX: u64 = 100_000;

struct OutsideAlone;

impl Rule for OutsideAlone {
    fn port(&self, port: u16) -> bool {
        port > 1024
    }

    fn address(&self, address: IpAddr) -> bool {
        address == OUTSIDE
    }
}

/// Answers in turn, the last one for ever; counts.
#[derive(Default)]
struct Says {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    asked: AtomicUsize,
}

impl Says {
    fn new(answers: &[(&str, &[&[Ipv4Addr]])]) -> Arc<Self> {
        let addresses = |answer: &&[Ipv4Addr]| answer.iter().map(|address| IpAddr::V4(*address)).collect();
        let answers = answers
            .iter()
            .map(|(host, answers)| ((*host).to_owned(), answers.iter().map(addresses).collect()));
        Arc::new(Self { answers: Mutex::new(answers.collect()), asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Resolver for Says {
    fn addresses(&self, host: &str) -> Addresses {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut all = self.answers.lock().unwrap();
        let answer = all.get_mut(host).map(|answers| match answers.len() {
            1 => answers[0].clone(),
            _ => answers.remove(0),
        });
        Box::pin(async move { answer.ok_or(std::io::ErrorKind::NotFound.into()) })
    }
}

/// A server that counts its connections; each request's head goes to `answer`, which writes.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(at: Ipv4Addr, answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::listen(TcpListener::bind((at, 0)).unwrap(), answer)
    }

    fn listen(listener: TcpListener, answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (connections, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (counted, kept, answer) = (Arc::clone(&connections), Arc::clone(&heads), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                counted.fetch_add(1, Ordering::Relaxed);
                let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                std::thread::spawn(move || {
                    let head = head(&mut stream);
                    kept.lock().unwrap().push(head.clone());
                    answer(&head, &mut stream);
                });
            }
        });
        Self { port, connections, heads }
    }

    /// `http://HOST:PORT/PATH`
    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}/{path}", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn head(stream: &mut TcpStream) -> String {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn write(stream: &mut TcpStream, text: &str) {
    // The client may be gone already.
    drop(stream.write_all(text.as_bytes()));
}

/// Longer than any answer takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(30);

fn fetcher(resolver: Arc<Says>) -> Fetcher {
    patient(resolver, PATIENCE)
}

fn patient(resolver: Arc<Says>, timeout: Duration) -> Fetcher {
    let config = FetchConfig { bytes_max: BYTES_MAX, timeout, at_once: 2 };
    Fetcher::with(config, resolver, Arc::new(OutsideAlone)).unwrap()
}

async fn fetch(fetcher: &Fetcher, url: &str) -> Result<Vec<u8>, FetchError> {
    let mut fetched = fetcher.open(fetcher.target(url)?).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = fetched.chunk().await? {
        bytes.extend_from_slice(chunk.as_ref());
    }
    Ok(bytes)
}

async fn code(fetcher: &Fetcher, url: &str) -> &'static str {
    fetch(fetcher, url).await.map_or_else(|error| error.code(), |_| "fetched")
}

#[tokio::test]
async fn what_is_public_is_fetched_and_nothing_of_ours_goes_along() {
    let server = Server::start(OUTSIDE, |head, stream| {
        let answer = "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 5\r\n\r\nbytes";
        let moved = "HTTP/1.1 302 Found\r\nSet-Cookie: a=b\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n";
        write(stream, if head.starts_with("GET /moved?secret=1 ") { moved } else { answer });
    });
    let says = Says::new(&[("images.example", &[&[OUTSIDE]])]);
    let fetcher = fetcher(Arc::clone(&says));
    assert_eq!(fetch(&fetcher, &server.url("images.example", "a.png")).await.unwrap(), b"bytes");
    assert_eq!(fetch(&fetcher, &server.url("127.0.0.2", "a.png")).await.unwrap(), b"bytes");
    assert_eq!(fetch(&fetcher, &server.url("IMAGES.example", "moved?secret=1")).await.unwrap(), b"bytes");
    // Every connection its own: none is kept for whoever comes next.
    assert_eq!((server.connections(), says.asked()), (4, 3));
    let heads = server.heads.lock().unwrap().clone();
    for head in heads {
        let names: Vec<String> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        let known = ["accept", "accept-encoding", "host", "user-agent"];
        assert!(names.iter().all(|name| known.contains(&name.as_str())), "{head}");
        assert!(head.to_ascii_lowercase().contains("accept-encoding: identity\r\n"), "{head}");
        assert!(head.contains(" HTTP/1.1\r\n") && !head.contains("a=b"), "{head}");
    }
}

/// The name says something public when it is looked at and something inside ever after.
#[tokio::test]
async fn a_name_is_looked_up_once() {
    let trap = TcpListener::bind((INSIDE, 0)).unwrap();
    let port = trap.local_addr().unwrap().port();
    let ok = |_: &str, stream: &mut TcpStream| {
        write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npublic");
    };
    let trap = Server::listen(trap, ok);
    // The same port on both sides, so that only the address makes the difference.
    let server = Server::listen(TcpListener::bind((OUTSIDE, port)).unwrap(), ok);
    let says = Says::new(&[("rebinds.example", &[&[OUTSIDE], &[INSIDE]])]);
    let fetcher = fetcher(Arc::clone(&says));
    assert_eq!(fetch(&fetcher, &server.url("rebinds.example", "")).await.unwrap(), b"public");
    assert_eq!((says.asked(), server.connections(), trap.connections()), (1, 1, 0));
    // The next fetch looks anew, sees the other answer, and connects to nothing.
    assert_eq!(code(&fetcher, &server.url("rebinds.example", "")).await, "image_url_refused");
    assert_eq!((says.asked(), server.connections(), trap.connections()), (2, 1, 0));
}

#[tokio::test]
async fn one_refused_address_among_many_is_enough() {
    let ok = |_: &str, stream: &mut TcpStream| write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let inside = Server::start(INSIDE, ok);
    let outside = Server::listen(TcpListener::bind((OUTSIDE, inside.port)).unwrap(), ok);
    let says = Says::new(&[
        ("inside.example", &[&[INSIDE]]),
        ("first.example", &[&[INSIDE, OUTSIDE]]),
        ("last.example", &[&[OUTSIDE, INSIDE]]),
        ("none.example", &[&[]]),
    ]);
    let fetcher = fetcher(says);
    let mut told = Vec::new();
    for host in
        ["inside.example", "first.example", "last.example", "none.example", "unknown.example", "127.1"]
    {
        let error = fetch(&fetcher, &inside.url(host, "")).await.unwrap_err();
        assert_eq!(error.code(), "image_url_refused", "{host}");
        told.push(error.to_string());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "who asks must not learn which names there are inside: {told:?}");
    let https = inside.url("inside.example", "").replace("http:", "https:");
    assert_eq!(code(&fetcher, &https).await, "image_url_refused");
    assert_eq!((inside.connections(), outside.connections()), (0, 0));
}

#[tokio::test]
async fn every_redirect_is_held_against_the_rule() {
    let ok =
        |_: &str, stream: &mut TcpStream| write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nin");
    let inside = Server::start(INSIDE, ok);
    let to = inside.port;
    let server = Server::start(OUTSIDE, move |head, stream| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (status, location) = match path {
            "/address" => (302, format!("http://127.0.0.1:{to}/")),
            "/spelled" => (301, format!("//2130706433:{to}/")),
            "/name" => (307, format!("http://inside.example:{to}/")),
            "/port" => (308, "http://127.0.0.2:22/".to_owned()),
            "/user" => (303, "http://a:b@127.0.0.2/".to_owned()),
            "/file" => (302, "file:///etc/passwd".to_owned()),
            "/loop" => (302, "/loop".to_owned()),
            "/4" => (302, "/3".to_owned()),
            "/3" => (302, "/2".to_owned()),
            "/2" => (302, "/1".to_owned()),
            "/1" => (302, "/end".to_owned()),
            "/5" => (302, "/4".to_owned()),
            "/end" => (200, String::new()),
            "/nowhere" => (302, String::new()),
            _ => (404, String::new()),
        };
        let location = if location.is_empty() { location } else { format!("Location: {location}\r\n") };
        write(stream, &format!("HTTP/1.1 {status} X\r\n{location}Content-Length: 0\r\n\r\n"));
    });
    let fetcher = fetcher(Says::new(&[("inside.example", &[&[INSIDE]])]));
    for (path, expected) in [
        ("address", "image_url_refused"),
        ("spelled", "image_url_refused"),
        ("name", "image_url_refused"),
        ("port", "image_url_redirect"),
        ("user", "image_url_redirect"),
        ("file", "image_url_redirect"),
        ("nowhere", "image_url_redirect"),
        ("loop", "image_url_redirect"),
        ("5", "image_url_redirect"),
        ("4", "fetched"),
        ("missing", "image_url_status"),
    ] {
        assert_eq!(code(&fetcher, &server.url("127.0.0.2", path)).await, expected, "{path}");
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn size_is_counted_not_believed() {
    let server = Server::start(OUTSIDE, |head, stream| {
        let piece = "x".repeat(10_000);
        if head.starts_with("GET /announced ") {
            write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n");
        } else if head.starts_with("GET /exact ") {
            write(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", piece.repeat(10)));
        } else if head.starts_with("GET /short ") {
            write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
        } else if head.starts_with("GET /gzip ") {
            write(stream, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc");
        } else {
            let chunked = head.starts_with("GET /chunked ");
            let coding = if chunked { "Transfer-Encoding: chunked" } else { "Connection: close" };
            write(stream, &format!("HTTP/1.1 200 OK\r\n{coding}\r\n\r\n"));
            let piece = if chunked { format!("2710\r\n{piece}\r\n") } else { piece };
            // Without end, as far as the other side takes it.
            while stream.write_all(piece.as_bytes()).is_ok() {}
        }
    });
    let fetcher = fetcher(Says::new(&[]));
    for (path, expected) in [
        ("announced", "image_url_too_large"),
        ("chunked", "image_url_too_large"),
        ("endless", "image_url_too_large"),
        ("short", "image_url_unreachable"),
        ("gzip", "image_url_encoded"),
        ("exact", "fetched"),
    ] {
        assert_eq!(code(&fetcher, &server.url("127.0.0.2", path)).await, expected, "{path}");
    }
}

#[tokio::test]
async fn time_and_number_are_bounded() {
    let server = Server::start(OUTSIDE, |head, stream| {
        if head.starts_with("GET /silent ") {
            std::thread::sleep(Duration::from_secs(10));
        }
        write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        // Never silent for long, and yet never done.
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let fetcher = patient(Says::new(&[]), Duration::from_millis(1500));
    let began = Instant::now();
    let (silent, drips) = (server.url("127.0.0.2", "silent"), server.url("127.0.0.2", "drips"));
    let third = async {
        // The other two have their places by now.
        tokio::time::sleep(Duration::from_millis(200)).await;
        code(&fetcher, &drips).await
    };
    let answers = tokio::join!(code(&fetcher, &silent), code(&fetcher, &drips), third);
    assert_eq!(answers, ("image_url_too_slow", "image_url_too_slow", "fetches_over_limit"));
    let took = began.elapsed();
    assert!((Duration::from_millis(1400)..Duration::from_secs(9)).contains(&took), "{took:?}");
    // The places are free again.
    assert_eq!(code(&fetcher, &drips).await, "image_url_too_slow");
}

#[tokio::test]
async fn what_speaks_no_http_is_unreachable() {
    let server = Server::start(OUTSIDE, |head, stream| match head.split(' ').nth(1) {
        Some("/garbage") => write(stream, "\0\0\0garbage\r\n\r\n"),
        Some("/huge") => write(stream, &format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(2_000_000))),
        _ => {}
    });
    let fetcher = fetcher(Says::new(&[]));
    for path in ["garbage", "huge", "closes"] {
        assert_eq!(code(&fetcher, &server.url("127.0.0.2", path)).await, "image_url_unreachable", "{path}");
    }
    let nobody = TcpListener::bind((OUTSIDE, 0)).unwrap().local_addr().unwrap();
    assert_eq!(code(&fetcher, &format!("http://{nobody}/")).await, "image_url_unreachable");
    let error = fetch(&fetcher, &format!("http://{nobody}/?signature=secret")).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
}

/// As it is built in production: no test's rule, the system's own resolver.
#[tokio::test]
async fn the_real_one_reaches_nothing_here() {
    let config = FetchConfig { bytes_max: BYTES_MAX, timeout: PATIENCE, at_once: 2 };
    let fetcher = Fetcher::new(config).unwrap();
    for url in [
        "http://localhost/",
        "http://LOCALHOST./",
        "https://localhost/",
        "http://127.0.0.1/",
        "http://[::1]/",
    ] {
        assert_eq!(code(&fetcher, url).await, "image_url_refused", "{url}");
    }
    assert!(!Public.address(OUTSIDE.into()));
}
