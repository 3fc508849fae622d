//! `models add ORG/NAME` against a stand-in of the Hub: what is fetched, from whom, into which files, and what
//! is said when it goes wrong.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use shieldgate_tests::hub::{Asked, COMMIT, Deed, Hub, MODEL, SIGNATURE};
use shieldgate_tests::{Done, binary, shieldgate};
use tempfile::TempDir;

const TOKEN: &str = "hf_tOkEnOfNobody";
const WEIGHTS: &str = "model.safetensors";
const CONFIG: &str = "config.json";

fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/shieldgemma2").join(name).join("checkpoint")
}

/// A machine of its own: a cache, a data directory, an environment.
struct Machine {
    folder: TempDir,
    env: Vec<(&'static str, String)>,
}

impl Machine {
    fn new(hub: &Hub) -> Self {
        let folder = TempDir::new().expect("a folder");
        let home = folder.path().join("hf").display().to_string();
        let env = vec![
            ("HF_ENDPOINT", hub.endpoint()),
            ("HF_HOME", home),
            ("HF_TOKEN", TOKEN.to_owned()),
            ("NO_PROXY", "127.0.0.1".to_owned()),
        ];
        Self { folder, env }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.env.retain(|(known, _)| *known != name);
        self.env.push((name, value.to_string()));
        self
    }

    fn run(&self, args: &[&str]) -> Done {
        let env: Vec<(&str, &str)> = self.env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let args: Vec<&str> = args.iter().copied().chain(["--data-dir", "data"]).collect();
        let done = shieldgate(self.folder.path(), &args, &env);
        for text in [&done.stdout, &done.stderr] {
            assert!(!text.contains(TOKEN) && !text.contains(SIGNATURE), "a secret is shown: {text}");
        }
        assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
        done
    }

    fn add(&self) -> Done {
        self.run(&["models", "add", MODEL])
    }

    fn spawn(&self) -> Child {
        let mut command = Command::new(binary());
        command.current_dir(self.folder.path()).args(["models", "add", MODEL, "--data-dir", "data"]);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the binary starts")
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("hf/hub").join(format!("models--{}", MODEL.replace('/', "--")))
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.model().join("blobs").join(name)
    }

    fn incomplete(&self, hub: &Hub, file: &str) -> PathBuf {
        self.blob(&format!("{}.incomplete", hub.digest(file)))
    }

    /// As an earlier run left it.
    fn leave(&self, hub: &Hub, file: &str, bytes: &[u8]) {
        std::fs::create_dir_all(self.model().join("blobs")).expect("makes folders");
        std::fs::write(self.incomplete(hub, file), bytes).expect("writes");
    }

    fn recorded(&self) -> bool {
        self.folder.path().join("data/models/shieldgemma2.json").exists()
    }

    /// Names in a folder of the model's.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.model().join(folder)).into_iter().flatten();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("reads").file_name();
        let mut names: Vec<String> =
            entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn weights_of(name: &str) -> Vec<u8> {
    std::fs::read(checkpoint(name).join(WEIGHTS)).expect("is committed")
}

/// The host that sends this file.
fn at(asked: &Asked, file: &str) -> bool {
    asked.file == file && asked.elsewhere == file.ends_with(".safetensors")
}

#[test]
fn a_model_is_fetched_once_and_lies_as_the_python_tools_have_it() {
    let hub = Hub::start(&checkpoint("a"), |_| Deed::Well);
    let machine = Machine::new(&hub);
    let done = machine.run(&["models", "add", MODEL, "--log", "trace"]);
    let said = done.stderr.clone();
    let line = done.good();
    assert!(line.starts_with("shieldgemma2 shieldgemma2 sha256:"), "{line}");
    let terms =
        "commit c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00; licence: gemma (https://ai.google.dev/gemma/terms)";
    assert!(
        said.find(terms).expect("they are named") < said.find("downloading").expect("it is said"),
        "{said}"
    );

    let mut expected: Vec<String> = std::fs::read_dir(checkpoint("a"))
        .expect("a checkpoint")
        .map(|entry| entry.expect("reads").file_name().to_string_lossy().into_owned())
        .collect();
    expected.sort();
    let snapshot = format!("snapshots/{COMMIT}");
    assert_eq!(machine.names(&snapshot), expected, "nothing else is wanted");
    for name in &expected {
        let link = machine.model().join(&snapshot).join(name);
        let target = std::fs::read_link(&link).expect("a link");
        assert_eq!(target, Path::new("../../blobs").join(hub.digest(name)));
        assert_eq!(std::fs::read(&link).ok(), std::fs::read(checkpoint("a").join(name)).ok(), "{name}");
    }
    let mut blobs: Vec<String> = expected.iter().map(|name| hub.digest(name)).collect();
    blobs.sort();
    assert_eq!(machine.names("blobs"), blobs, "each once, and nothing unfinished");
    assert_eq!(std::fs::read_to_string(machine.model().join("refs/main")).ok().as_deref(), Some(COMMIT));
    assert!(!std::fs::exists(machine.folder.path().join("data/models/blobs")).unwrap_or(true));

    // The token goes to the Hub with every request, and to nobody else.
    for asked in hub.asked() {
        let token = asked.headers.get("authorization").map(String::as_str);
        assert_eq!(token, (!asked.elsewhere).then_some(&*format!("Bearer {TOKEN}")), "{asked:?}");
    }
    assert_eq!(hub.asked_for(WEIGHTS).len(), 1);

    // Again: the listing is asked for and nothing else.
    let before = hub.asked().len();
    machine.add().good();
    let asked = hub.asked().split_off(before);
    assert!(asked.len() == 1 && asked[0].path.ends_with("/revision/main?blobs=true"), "{asked:?}");
    // Offline: nothing is.
    let machine = machine.with("HF_HUB_OFFLINE", 1);
    machine.add().good();
    machine.run(&["models", "add", &format!("{MODEL}@{COMMIT}")]).good();
    assert_eq!(hub.asked().len(), before + 1);
    // And where nobody answers, the cache does, and it is said.
    let machine = machine.with("HF_HUB_OFFLINE", 0).with("HF_ENDPOINT", "http://127.0.0.1:9");
    let done = machine.add();
    let said = done.stderr.clone();
    done.good();
    assert!(said.contains("can't be reached (Connection refused"), "{said}");
    assert!(said.contains(&format!("what the cache has is used: commit {COMMIT}")), "{said}");
    machine.run(&["models", "verify"]).good();
}

#[test]
fn a_sharded_model_comes_whole_and_by_its_index() {
    let hub = Hub::start(&checkpoint("c"), |_| Deed::Well);
    let machine = Machine::new(&hub);
    machine.run(&["models", "add", &format!("{MODEL}@refs/pr/7"), "--name", "mine"]).good();
    let names = machine.names(&format!("snapshots/{COMMIT}"));
    assert_eq!(names.iter().filter(|name| name.ends_with(".safetensors")).count(), 4, "{names:?}");
    assert!(hub.asked()[0].path.contains("/revision/refs%2Fpr%2F7?"), "{:?}", hub.asked()[0]);
    assert_eq!(std::fs::read_to_string(machine.model().join("refs/refs/pr/7")).ok().as_deref(), Some(COMMIT));
    let listed = machine.run(&["models", "list"]).good();
    assert!(listed.contains("mine") && listed.contains(COMMIT), "read where it lies: {listed}");
}

#[test]
fn a_cut_is_continued_where_it_was() {
    let half = weights_of("a").len() / 2;
    let hub = Hub::start(&checkpoint("a"), move |asked| match (at(asked, WEIGHTS), asked.nth) {
        (true, 0) => Deed::Cut(half),
        (true, 1) => Deed::Status(503, vec![]),
        _ => Deed::Well,
    });
    let machine = Machine::new(&hub);
    let done = machine.add();
    let said = done.stderr.clone();
    done.good();
    assert!(
        said.contains(&format!("{half} of {} bytes", 2 * half)) && said.contains("answered 503"),
        "{said}"
    );
    let from: Vec<Option<usize>> = hub.asked_for(WEIGHTS).iter().map(Asked::from).collect();
    assert_eq!(from, [None, Some(half), Some(half)]);
    assert_eq!(std::fs::read(machine.blob(&hub.digest(WEIGHTS))).ok(), Some(weights_of("a")));
}

#[test]
fn an_interrupted_download_is_continued_by_the_next() {
    let half = weights_of("a").len() / 2;
    let hub = Hub::start(&checkpoint("a"), move |asked| match (at(asked, WEIGHTS), asked.nth) {
        (true, 0) => Deed::Stall(half),
        _ => Deed::Well,
    });
    let machine = Machine::new(&hub);
    let child = machine.spawn();
    let (partial, since) = (machine.incomplete(&hub, WEIGHTS), Instant::now());
    while std::fs::metadata(&partial).map_or(0, |found| found.len()) < half as u64 {
        assert!(since.elapsed() < Duration::from_secs(30), "nothing comes");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Ctrl-C.
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    // SAFETY: kill takes two numbers and touches no memory of ours; the child is ours and not yet waited for.
    unsafe { libc::kill(pid, libc::SIGINT) };
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("error: interrupted"), "{output:?}");
    assert_eq!(std::fs::metadata(&partial).map(|found| found.len()).ok(), Some(half as u64), "it is kept");
    assert!(!machine.recorded());

    machine.add().good();
    let from: Vec<Option<usize>> = hub.asked_for(WEIGHTS).iter().map(Asked::from).collect();
    assert_eq!(from, [None, Some(half)]);
    assert_eq!(hub.asked_for(CONFIG).len(), 1, "what is there is not fetched again");
    assert_eq!(std::fs::read(machine.blob(&hub.digest(WEIGHTS))).ok(), Some(weights_of("a")));
}

#[test]
fn what_lies_there_is_used_if_it_is_right() {
    let weights = weights_of("a");
    let half = weights.len() / 2;
    // The first half; all of it; another's; more than there is.
    let cases: [(Vec<u8>, &[Option<usize>]); 4] = [
        (weights[..half].to_vec(), &[Some(half)]),
        (weights.clone(), &[]),
        (vec![7; half], &[Some(half), None]),
        (vec![7; weights.len() + 1], &[None]),
    ];
    for (there, expected) in cases {
        let hub = Hub::start(&checkpoint("a"), |_| Deed::Well);
        let machine = Machine::new(&hub);
        machine.leave(&hub, WEIGHTS, &there);
        machine.add().good();
        let from: Vec<Option<usize>> = hub.asked_for(WEIGHTS).iter().map(Asked::from).collect();
        assert_eq!(from, expected, "{} bytes were there", there.len());
        assert_eq!(std::fs::read(machine.blob(&hub.digest(WEIGHTS))).ok().as_ref(), Some(&weights));
    }
}

#[test]
fn a_server_that_cant_continue_begins_again() {
    for (instead, said) in [
        (Deed::Whole, "can't continue model.safetensors"),
        (Deed::Elsewhere, "answered 206; trying again"),
        (Deed::Status(416, vec![]), "answered 416; trying again"),
    ] {
        let hub = Hub::start(&checkpoint("a"), move |asked| match (at(asked, WEIGHTS), asked.nth) {
            (true, 0) => Deed::Cut(1000),
            (true, 1) => instead.clone(),
            _ => Deed::Well,
        });
        let machine = Machine::new(&hub);
        let done = machine.add();
        let told = done.stderr.clone();
        done.good();
        assert!(told.contains(said), "{told}");
        assert_eq!(std::fs::read(machine.blob(&hub.digest(WEIGHTS))).ok(), Some(weights_of("a")));
    }
}

#[test]
fn bytes_that_are_not_the_listed_ones_get_no_name() {
    let mut changed = weights_of("a");
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let longer = [weights_of("a"), vec![0]].concat();
    let config = std::fs::read_to_string(checkpoint("a").join(CONFIG)).expect("is committed");
    let tampered = config.replacen("112", "113", 1).into_bytes();
    assert_eq!(tampered.len(), config.len());
    for (file, other, expected) in [
        (WEIGHTS, changed, "SHA-256"),
        (CONFIG, tampered, "git SHA-1"),
        (WEIGHTS, longer, "bytes as `model.safetensors`"),
    ] {
        let hub = Hub::start(&checkpoint("a"), move |asked| {
            if at(asked, file) { Deed::Other(other.clone()) } else { Deed::Well }
        });
        let machine = Machine::new(&hub);
        let error = machine.add().bad(1);
        assert!(error.contains(expected) && error.contains(file), "{error}");
        let blobs = machine.names("blobs");
        assert!(!blobs.iter().any(|name| name.starts_with(&hub.digest(file))), "{blobs:?}");
        assert!(!machine.recorded());
        assert_eq!(hub.asked_for(file).len(), 1);
    }
    // The Hub's own answer may contradict its list.
    let hub = Hub::start(&checkpoint("a"), |asked| {
        if asked.file == WEIGHTS { Deed::Tag("a".repeat(64)) } else { Deed::Well }
    });
    let machine = Machine::new(&hub);
    let error = machine.add().bad(1);
    assert!(error.contains(&"a".repeat(64)) && error.contains(&hub.digest(WEIGHTS)), "{error}");
    assert!(!machine.names("blobs").iter().any(|name| name.starts_with(&hub.digest(WEIGHTS))));
}

#[test]
fn a_blob_that_was_damaged_in_the_cache_is_found() {
    let hub = Hub::start(&checkpoint("a"), |_| Deed::Well);
    let machine = Machine::new(&hub);
    machine.add().good();
    let blob = machine.blob(&hub.digest(WEIGHTS));
    let mut bytes = weights_of("a");
    *bytes.last_mut().expect("a byte") ^= 1;
    std::fs::write(&blob, &bytes).expect("writes");
    let error = machine.add().bad(1);
    assert!(error.contains(&hub.digest(WEIGHTS)) && error.contains("remove"), "{error}");
    // Of another size it is no download to rely on at all.
    std::fs::write(&blob, &bytes[1..]).expect("writes");
    machine.add().good();
    assert_eq!(std::fs::read(&blob).ok(), Some(weights_of("a")));
}

#[test]
fn refusals_say_what_to_do() {
    type Case = (u16, &'static str, Option<&'static str>, bool, &'static [&'static str]);
    let cases: [Case; 10] = [
        // For the listing (no file named) or for a file; with a token or without.
        (
            401,
            "GatedRepo",
            Some(CONFIG),
            false,
            &["is gated: accept its terms at http://127", MODEL, "set HF_TOKEN"],
        ),
        (
            403,
            "GatedRepo",
            Some(WEIGHTS),
            true,
            &["is gated: accept its terms at http://127", "hint: the token that was sent"],
        ),
        (401, "RepoNotFound", None, false, &["has no model", "HF_TOKEN is not set"]),
        (404, "RepoNotFound", None, true, &["has no model `tiny/ShieldGemma2`", "nor is there a folder"]),
        (401, "", None, true, &["does not accept the token", "HF_TOKEN"]),
        (403, "", None, true, &["does not let this token read", "fine-grained"]),
        (404, "RevisionNotFound", None, true, &["no revision `main`"]),
        (404, "EntryNotFound", Some(CONFIG), true, &["lists `config.json`", "does not have it"]),
        (418, "", None, true, &["answered 418", "a list of files"]),
        (418, "", Some(CONFIG), true, &["answered 418", "a file"]),
    ];
    for (status, code, file, token, expected) in cases {
        let hub = Hub::start(&checkpoint("a"), move |asked| {
            if asked.file == file.unwrap_or_default() && !asked.elsewhere {
                Deed::Status(status, vec![("x-error-code", code.to_owned())])
            } else {
                Deed::Well
            }
        });
        let machine = Machine::new(&hub);
        let machine = if token { machine } else { machine.with("HF_TOKEN", "") };
        let error = machine.add().bad(1);
        for part in expected {
            assert!(error.contains(part), "{status} {code}: `{part}` is not in: {error}");
        }
        assert!(!machine.recorded());
    }
}

#[test]
fn terms_are_named_before_a_gated_model_is_fetched() {
    let listing = Hub::start(&checkpoint("a"), |_| Deed::Well).listing();
    let hub = Hub::start(&checkpoint("a"), move |asked| {
        let mut listing = listing.clone();
        listing["gated"] = "manual".into();
        // As a mirror refuses, without the Hub's own code.
        if asked.file.is_empty() { Deed::Json(listing) } else { Deed::Status(403, vec![]) }
    });
    let error = Machine::new(&hub).add().bad(1);
    assert!(
        error.contains(&format!("gated: its terms must be accepted at {}/{MODEL}", hub.endpoint())),
        "{error}"
    );
    assert!(error.contains("is gated: accept its terms at"), "{error}");
}

#[test]
fn a_server_that_falls_silent_is_not_waited_for() {
    let hub = Hub::start(&checkpoint("a"), |asked| match (at(asked, WEIGHTS), asked.nth) {
        (true, 0) => Deed::Stall(5000),
        _ => Deed::Well,
    });
    let machine = Machine::new(&hub).with("HF_HUB_DOWNLOAD_TIMEOUT", 1);
    machine.add().good();
    assert_eq!(hub.asked_for(WEIGHTS).iter().map(Asked::from).collect::<Vec<_>>(), [None, Some(5000)]);

    // Neither for ever, nor at the listing.
    let endless = |file: &'static str| {
        let hub = Hub::start(&checkpoint("a"), move |asked| {
            if asked.file == file && asked.elsewhere != file.is_empty() { Deed::Stall(0) } else { Deed::Well }
        });
        let machine = Machine::new(&hub).with("HF_HUB_DOWNLOAD_TIMEOUT", 1);
        let since = Instant::now();
        let error = machine.add().bad(1);
        assert!(error.contains("sent nothing for 1 s"), "{error}");
        assert!(since.elapsed() < Duration::from_secs(40), "{:?}", since.elapsed());
    };
    std::thread::scope(|scope| {
        scope.spawn(|| endless(""));
        scope.spawn(|| endless(WEIGHTS));
    });
}

#[test]
fn a_rate_limit_is_waited_for_as_long_as_it_says() {
    let hub = Hub::start(&checkpoint("a"), |asked| match (asked.file.as_str(), asked.nth) {
        ("", 0) => Deed::Status(429, vec![("retry-after", "2".to_owned())]),
        (CONFIG, 0) => Deed::Status(429, vec![("ratelimit", "\"resolvers\";r=0;t=2".to_owned())]),
        _ => Deed::Well,
    });
    let since = Instant::now();
    Machine::new(&hub).add().good();
    assert!(since.elapsed() >= Duration::from_secs(4), "{:?}", since.elapsed());

    let hub = Hub::start(&checkpoint("a"), |_| Deed::Status(429, vec![("retry-after", "3600".to_owned())]));
    let error = Machine::new(&hub).add().bad(1);
    assert!(error.contains("too many requests, again in 3600 s"), "{error}");
    assert_eq!(hub.asked().len(), 1);
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    let listing = Hub::start(&checkpoint("a"), |_| Deed::Well).listing();
    let cases = [
        ("rfilename", json!("../../../../../evil.json"), "outside its folder"),
        ("rfilename", json!("/tmp/evil.json"), "outside its folder"),
        ("blobId", json!("../../../../../../evil"), "size and digest"),
        ("sha", json!("../../../../evil"), "no commit"),
    ];
    for (key, value, expected) in cases {
        let mut listing = listing.clone();
        match key {
            "sha" => listing["sha"] = value,
            _ => {
                let siblings = listing["siblings"].as_array_mut().expect("a list");
                let config =
                    siblings.iter_mut().find(|file| file["rfilename"] == CONFIG).expect("it has one");
                config[key] = value;
            }
        }
        let hub = Hub::start(&checkpoint("a"), move |asked| {
            if asked.file.is_empty() { Deed::Json(listing.clone()) } else { Deed::Well }
        });
        let machine = Machine::new(&hub);
        let error = machine.add().bad(1);
        assert!(error.contains(expected), "{error}");
        assert_eq!(hub.asked().len(), 1, "nothing was downloaded");
        assert!(!machine.folder.path().join("hf").exists(), "nothing was made");
    }
    let hub = Hub::start(&checkpoint("a"), |asked| {
        if asked.file.is_empty() {
            Deed::Json(json!("<html>Sign in to the hotel's network</html>"))
        } else {
            Deed::Well
        }
    });
    assert!(Machine::new(&hub).add().bad(1).contains("does not answer as a Hub does"));
}

#[test]
fn redirects_that_lead_nowhere_end() {
    for (to, expected) in [("/elsewhere", "never ends"), ("file:///etc/passwd", "neither http nor https")] {
        let hub = Hub::start(&checkpoint("a"), move |_| Deed::Status(302, vec![("location", to.to_owned())]));
        let error = Machine::new(&hub).add().bad(1);
        assert!(error.contains(expected), "{error}");
        assert!(hub.asked().len() <= 10);
    }
}

#[test]
fn another_architecture_is_refused_before_its_weights_come() {
    let folder = TempDir::new().expect("a folder");
    for entry in std::fs::read_dir(checkpoint("a")).expect("a checkpoint") {
        let path = entry.expect("reads").path();
        std::fs::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("copies");
    }
    let config = folder.path().join(CONFIG);
    let text = std::fs::read_to_string(&config).expect("reads");
    std::fs::write(&config, text.replace("\"shieldgemma2\"", "\"llava\"")).expect("writes");
    let hub = Hub::start(folder.path(), |_| Deed::Well);
    let error = Machine::new(&hub).add().bad(1);
    assert!(error.contains("llava") && error.contains("shieldgemma2"), "{error}");
    assert!(hub.asked_for(WEIGHTS).is_empty());
}

#[test]
fn offline_without_a_cache_says_so() {
    let hub = Hub::start(&checkpoint("a"), |_| Deed::Well);
    let machine = Machine::new(&hub).with("HF_HUB_OFFLINE", 1);
    let error = machine.add().bad(1);
    assert!(error.contains("is not in the cache") && error.contains("HF_HUB_OFFLINE"), "{error}");
    assert!(hub.asked().is_empty());
    // A snapshot of which a part is missing is named by that part.
    let machine = machine.with("HF_HUB_OFFLINE", 0);
    machine.add().good();
    std::fs::remove_file(machine.blob(&hub.digest(WEIGHTS))).expect("removes");
    let machine = machine.with("HF_HUB_OFFLINE", 1);
    let error = machine.add().bad(1);
    assert!(error.contains("model.safetensors` is missing"), "{error}");
}

#[test]
fn two_at_once_fetch_every_file_once() {
    let hub = Hub::start(&checkpoint("a"), |asked| {
        if asked.elsewhere { Deed::Late(Duration::from_millis(700)) } else { Deed::Well }
    });
    let machine = Machine::new(&hub);
    let both = [machine.spawn(), machine.spawn()];
    for child in both {
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for file in [WEIGHTS, "tokenizer.json"] {
        assert_eq!(
            hub.asked().iter().filter(|asked| asked.elsewhere && asked.file == file).count(),
            1,
            "{file}"
        );
    }
    assert!(machine.recorded());
}

#[test]
fn a_full_disk_is_called_one() {
    let hub = Hub::start(&checkpoint("a"), |_| Deed::Well);
    let machine = Machine::new(&hub);
    std::fs::create_dir_all(machine.model().join("blobs")).expect("makes folders");
    // The kernel's own full disk.
    std::os::unix::fs::symlink("/dev/full", machine.incomplete(&hub, WEIGHTS)).expect("links");
    let error = machine.add().bad(1);
    assert!(error.contains("the disk is full") && error.contains("HF_HUB_CACHE"), "{error}");

    // More than any disk holds is not begun.
    let mut listing = hub.listing();
    for file in listing["siblings"].as_array_mut().expect("a list") {
        if file["rfilename"] == WEIGHTS {
            file["lfs"]["size"] = (1_u64 << 60).into();
        }
    }
    let hub = Hub::start(&checkpoint("a"), move |asked| {
        if asked.file.is_empty() { Deed::Json(listing.clone()) } else { Deed::Well }
    });
    let error = Machine::new(&hub).add().bad(1);
    assert!(error.contains("are to be downloaded") && error.contains("has room for"), "{error}");
    assert!(hub.asked_for(WEIGHTS).is_empty());
}
