//! A stand-in for the Hugging Face Hub: its HTTP API for one model, the other host that keeps large files, and
//! every way to serve them badly.
//!
//! As at the real one, large files are redirected to an address with a signature, at another host (here:
//! another port), and named by their SHA-256; small ones come at once and are named by git's SHA-1.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// Nobody waits longer for the rest of an answer that has stalled.
const STALL: Duration = Duration::from_secs(60);

/// The model that every stand-in has.
pub const MODEL: &str = "tiny/ShieldGemma2";
pub const COMMIT: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
/// In every address of the other host.
pub const SIGNATURE: &str = "signed-0a1b2c3d";

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// At the host that keeps large files.
    pub elsewhere: bool,
    /// With its query.
    pub path: String,
    /// The file that is asked for; empty for the listing.
    pub file: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// How many requests for the same came before, at the same host.
    pub nth: usize,
}

impl Asked {
    pub fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What is done with a request.
#[derive(Debug, Clone)]
pub enum Deed {
    /// As the Hub does it.
    Well,
    Status(u16, Vec<(&'static str, String)>),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// Nothing comes after so many bytes of the body.
    Stall(usize),
    /// The whole file, whatever range was asked for.
    Whole,
    /// Another part than was asked for.
    Elsewhere,
    /// Other bytes than are listed.
    Other(Vec<u8>),
    /// The whole body, late.
    Late(Duration),
    /// The digest that goes with the answer is another one.
    Tag(String),
    Json(Value),
}

type Answer = dyn Fn(&Asked) -> Deed + Send + Sync;

struct State {
    files: BTreeMap<String, Vec<u8>>,
    answer: Box<Answer>,
    asked: Mutex<Vec<Asked>>,
    elsewhere: SocketAddr,
}

/// Serves until the test ends.
pub struct Hub {
    address: SocketAddr,
    state: Arc<State>,
}

impl Hub {
    /// With the files of `folder` and some that nobody should want.
    pub fn start(folder: &Path, answer: impl Fn(&Asked) -> Deed + Send + Sync + 'static) -> Self {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder).expect("a checkpoint") {
            let entry = entry.expect("is readable");
            let name = entry.file_name().into_string().expect("a plain name");
            files.insert(name, std::fs::read(entry.path()).expect("is readable"));
        }
        for unwanted in [
            "README.md",
            "pytorch_model.bin",
            "training_args.pkl",
            "consolidated.safetensors",
            "onnx/model.onnx",
        ] {
            files.insert(unwanted.to_owned(), b"nobody needs this".to_vec());
        }
        let bind = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (hub, elsewhere) = (bind(), bind());
        let address = |listener: &TcpListener| listener.local_addr().expect("it is bound");
        let state = Arc::new(State {
            files,
            answer: Box::new(answer),
            asked: Mutex::default(),
            elsewhere: address(&elsewhere),
        });
        let started = Self { address: address(&hub), state: Arc::clone(&state) };
        for (listener, is_elsewhere) in [(hub, false), (elsewhere, true)] {
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let state = Arc::clone(&state);
                    // A client that gives up is part of the tests.
                    std::thread::spawn(move || drop(state.serve(stream, is_elsewhere)));
                }
            });
        }
        started
    }

    /// For `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests for this file at the host that sends it.
    pub fn asked_for(&self, file: &str) -> Vec<Asked> {
        let sender = is_large(file);
        self.asked().into_iter().filter(|asked| asked.file == file && asked.elsewhere == sender).collect()
    }

    /// Its listing as it is without misdeeds.
    pub fn listing(&self) -> Value {
        self.state.listing()
    }

    /// The name of the file's blob in a cache.
    pub fn digest(&self, file: &str) -> String {
        digest(file, &self.state.files[file])
    }
}

fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors") || file == "tokenizer.json"
}

fn digest(file: &str, bytes: &[u8]) -> String {
    let hash = if is_large(file) {
        Sha256::digest(bytes).to_vec()
    } else {
        Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize().to_vec()
    };
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl State {
    fn listing(&self) -> Value {
        let siblings = self.files.iter().map(|(name, bytes)| {
            let mut file = json!({"rfilename": name, "size": bytes.len(), "blobId": "0".repeat(40)});
            if is_large(name) {
                file["lfs"] = json!({"sha256": digest(name, bytes), "size": bytes.len(), "pointerSize": 134});
            } else {
                file["blobId"] = digest(name, bytes).into();
            }
            file
        });
        json!({
            "id": MODEL, "sha": COMMIT, "gated": false, "private": false,
            "cardData": {"license": "gemma", "license_link": "https://ai.google.dev/gemma/terms"},
            "siblings": siblings.collect::<Vec<_>>(),
        })
    }

    fn serve(&self, mut stream: TcpStream, elsewhere: bool) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let path = lines.next().transpose()?.unwrap_or_default();
        let path = path.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let route = path.split('?').next().unwrap_or_default();
        let file = match route.strip_prefix(&format!("/{MODEL}/resolve/{COMMIT}/")) {
            Some(file) => file.to_owned(),
            None => route.strip_prefix("/large/").unwrap_or_default().to_owned(),
        };
        let asked = {
            let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let nth =
                all.iter().filter(|before| before.file == file && before.elsewhere == elsewhere).count();
            let asked = Asked { elsewhere, path, file, headers, nth };
            all.push(asked.clone());
            asked
        };
        let deed = (self.answer)(&asked);
        if let Deed::Status(status, headers) = &deed {
            return head(&mut stream, *status, headers, 0);
        }
        if asked.file.is_empty() {
            let body =
                if let Deed::Json(body) = &deed { body.to_string() } else { self.listing().to_string() };
            let headers = vec![("content-type", "application/json".to_owned())];
            return send(&mut stream, &asked, &deed, body.as_bytes(), headers);
        }
        let Some(bytes) = self.files.get(&asked.file) else {
            return head(&mut stream, 404, &[("x-error-code", "EntryNotFound".to_owned())], 0);
        };
        let mut headers = Vec::new();
        if !elsewhere {
            let tag = match &deed {
                Deed::Tag(tag) => tag.clone(),
                _ => digest(&asked.file, bytes),
            };
            headers
                .push((if is_large(&asked.file) { "x-linked-etag" } else { "etag" }, format!("\"{tag}\"")));
            if is_large(&asked.file) {
                let to = format!("http://{}/large/{}?sig={SIGNATURE}", self.elsewhere, asked.file);
                headers.push(("location", to));
                return head(&mut stream, 302, &headers, 0);
            }
        } else if !asked.path.contains(SIGNATURE) {
            return head(&mut stream, 403, &[], 0);
        }
        send(&mut stream, &asked, &deed, bytes, headers)
    }
}

fn send(
    stream: &mut TcpStream,
    asked: &Asked,
    deed: &Deed,
    bytes: &[u8],
    mut headers: Vec<(&'static str, String)>,
) -> std::io::Result<()> {
    let bytes = if let Deed::Other(other) = deed { other } else { bytes };
    let from = asked.from().filter(|_| !matches!(deed, Deed::Whole));
    let from = if let Deed::Elsewhere = deed { from.map(|from| from / 2) } else { from };
    let Some(body) = bytes.get(from.unwrap_or(0)..).filter(|body| from.is_none() || !body.is_empty()) else {
        return head(stream, 416, &[], 0);
    };
    if let Some(from) = from {
        headers.push(("content-range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())));
    }
    head(stream, if from.is_some() { 206 } else { 200 }, &headers, body.len())?;
    match deed {
        Deed::Cut(after) => stream.write_all(&body[..body.len().min(*after)]),
        Deed::Stall(after) => {
            stream.write_all(&body[..body.len().min(*after)])?;
            std::thread::sleep(STALL);
            Ok(())
        }
        Deed::Late(wait) => {
            std::thread::sleep(*wait);
            stream.write_all(body)
        }
        _ => stream.write_all(body),
    }
}

fn head(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&'static str, String)],
    length: usize,
) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes())
}
