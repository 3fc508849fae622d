//! Decoders in processes of their own: what they find, what they may do, and what they do to the service when
//! they go wrong.

#![expect(clippy::expect_used, reason = "this is all tests")]

use std::io::Cursor;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use shieldgate::decoders::{DecodeError, Decoders, Program};
use shieldgate::media::{self, Limits, MediaError};
use shieldgate::scheduler::Lane;

fn own() -> Program {
    Program { path: PathBuf::from(env!("CARGO_BIN_EXE_shieldgate")), args: vec!["decoder".into()] }
}

/// A decoder that says hello as ours do and then does what `script` says.
fn rogue(script: &str) -> Program {
    let hello = r#"{"confinement":{"no_files":true,"no_network":true,"no_processes":true,"missing":[]}}"#;
    let length = hello.len();
    assert!(length < 128);
    let script = format!("printf '\\{length:03o}\\0\\0\\0%s' '{hello}'; {script}");
    Program { path: PathBuf::from("/bin/sh"), args: vec!["-c".into(), script.into()] }
}

fn in_a_minute() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn started(program: Program, limits: Limits) -> Decoders {
    Decoders::start(program, 2, limits).await.expect("it starts").0
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let pixels =
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, (x ^ y) as u8]));
    let mut png = Cursor::new(Vec::new());
    pixels.write_to(&mut png, image::ImageFormat::Png).expect("encodes");
    png.into_inner()
}

#[tokio::test]
async fn what_a_decoder_finds_is_what_was_found_in_its_place() {
    let limits = Limits::default();
    let decoders = started(own(), limits).await;
    let mut failing = png(300, 200);
    failing.truncate(5000);
    let files = [
        png(1, 1),
        png(3000, 2000),
        failing,
        Vec::new(),
        b"<svg>".to_vec(),
        b"GIF89a\x01".to_vec(),
        png(640, 480),
    ];
    for (lane, bytes) in files.iter().flat_map(|bytes| [(Lane::Interactive, bytes), (Lane::Bulk, bytes)]) {
        let here = media::look(bytes, &limits);
        match decoders.look(bytes.clone(), lane, in_a_minute()).await {
            Ok((there, _place)) => {
                let here = here.expect("both look");
                assert_eq!(there.views.len(), here.views.len());
                for (there, here) in there.views.iter().zip(&here.views) {
                    assert_eq!(there.picture.width(), here.picture.width());
                    assert!(there.picture.rgb() == here.picture.rgb(), "other pixels");
                }
                let bare = |mut looked: media::Looked| {
                    looked.views.iter_mut().for_each(|view| {
                        view.picture = shieldgate_models::Picture::new(1, 1, [0; 3]).expect("a pixel")
                    });
                    format!("{looked:?}")
                };
                assert_eq!(bare(there), bare(here));
            }
            Err(DecodeError::Media(there)) => assert_eq!(Err(there), here.map(drop)),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(decoders.take_failed(), 0);
}

/// On this machine; `shieldgate doctor` tells an operator about theirs.
#[tokio::test]
async fn a_decoder_reaches_nothing() {
    let (_, confinement) = Decoders::start(own(), 1, Limits::default()).await.expect("it starts");
    assert!(confinement.no_files && confinement.no_network && confinement.no_processes, "{confinement:?}");
    assert!(!confinement.missing.iter().any(|layer| layer.starts_with("seccomp")), "{confinement:?}");
}

/// Bulk work leaves a core at once to whoever else wants it.
#[tokio::test]
async fn bulk_decoders_give_way() {
    /// How Linux schedules the children of this process: the 39th field behind the name in brackets.
    fn policies() -> Vec<String> {
        let ours = std::process::id().to_string();
        let stats = std::fs::read_dir("/proc").expect("a list of processes").filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
            let fields: Vec<String> = stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect();
            (fields.get(1) == Some(&ours)).then(|| fields.get(38).cloned())?
        });
        stats.collect()
    }
    let idle = libc::SCHED_IDLE.to_string();
    let decoders = started(own(), Limits::default()).await;
    decoders.look(png(64, 64), Lane::Interactive, in_a_minute()).await.expect("looks");
    decoders.look(png(64, 64), Lane::Bulk, in_a_minute()).await.expect("looks");
    let found = policies();
    // Other tests' bulk decoders run beside; interactive ones are never so.
    assert!(found.contains(&idle), "no decoder gives way: {found:?}");
    assert!(found.contains(&libc::SCHED_OTHER.to_string()), "none is an ordinary one: {found:?}");
}

/// What the decoder's own estimate should have refused is cut off by the system.
#[tokio::test]
async fn memory_beyond_what_it_was_given_costs_one_picture() {
    let mut little = own();
    little.args.push("30000000".into());
    let decoders = started(little, Limits::default()).await;
    let small = decoders.look(png(640, 480), Lane::Interactive, in_a_minute()).await;
    assert!(small.is_ok(), "{small:?}");
    let large = decoders.look(png(5000, 4000), Lane::Interactive, in_a_minute()).await;
    assert!(matches!(large, Err(DecodeError::Media(MediaError::DecoderFailed))), "{large:?}");
    let small = decoders.look(png(640, 480), Lane::Interactive, in_a_minute()).await;
    assert!(small.is_ok(), "{small:?}");
}

#[tokio::test]
async fn one_that_dies_costs_one_picture() {
    for script in ["exit 1", "kill -SEGV $$", "head -c 20 >/dev/null; exit 0"] {
        let decoders = started(rogue(script), Limits::default()).await;
        let answer = decoders.look(png(64, 64), Lane::Interactive, in_a_minute()).await;
        assert!(matches!(answer, Err(DecodeError::Media(MediaError::DecoderFailed))), "{script}: {answer:?}");
        // A second one was asked, to be fair.
        assert_eq!(decoders.take_failed(), 2, "{script}");
    }
}

#[tokio::test]
async fn one_that_lies_is_not_believed() {
    let answers = [
        // A header without end.
        r"\377\377\377\377",
        // No JSON.
        r"\004\0\0\0oops",
        // More pixels than the limits admit: nobody makes room for them.
        r#"\336\0\0\0{"looked":{"media_type":"image/png","width":1,"height":1,"frames_total":1,"frames_scored":1,"frames_distinct":1,"trailing_bytes":null,"doubts":[],"pdq":null,"views":[{"width":4000000000,"height":4000000000,"frame":0,"at_ms":0}]}}"#,
        // No picture at all.
        r#"\235\0\0\0{"looked":{"media_type":"image/png","width":1,"height":1,"frames_total":1,"frames_scored":1,"frames_distinct":1,"trailing_bytes":null,"doubts":[],"pdq":null,"views":[]}}"#,
    ];
    for answer in answers {
        let decoders = started(rogue(&format!("printf '{answer}'; sleep 5")), Limits::default()).await;
        let began = Instant::now();
        let told = decoders.look(png(64, 64), Lane::Interactive, in_a_minute()).await;
        assert!(matches!(told, Err(DecodeError::Media(MediaError::DecoderFailed))), "{answer}: {told:?}");
        assert!(began.elapsed() < Duration::from_secs(4), "{answer}: it was waited for");
        assert_eq!(decoders.take_failed(), 1, "{answer}");
    }
}

#[tokio::test]
async fn one_that_computes_without_end_is_ended() {
    let limits = Limits { cpu_max: Duration::from_millis(300), ..Limits::default() };
    let decoders = started(rogue("cat >/dev/null & while :; do :; done"), limits).await;
    let answer = decoders.look(png(64, 64), Lane::Interactive, in_a_minute()).await;
    assert!(matches!(answer, Err(DecodeError::Media(MediaError::TooSlow { .. }))), "{answer:?}");
}

/// It waits, so it takes no CPU time: the request's own time decides.
#[tokio::test]
async fn one_that_does_not_answer_is_ended_with_the_request() {
    let decoders = started(rogue("sleep 600"), Limits::default()).await;
    let until = Instant::now() + Duration::from_millis(300);
    let answer = decoders.look(png(64, 64), Lane::Interactive, until).await;
    assert!(matches!(answer, Err(DecodeError::Deadline)), "{answer:?}");
}

#[tokio::test]
async fn one_that_cannot_start_is_an_error_at_start() {
    let nowhere = Program { path: PathBuf::from("/nonexistent"), args: Vec::new() };
    assert!(Decoders::start(nowhere, 1, Limits::default()).await.is_err());
    let ends = Program { path: PathBuf::from("/bin/false"), args: Vec::new() };
    let error = Decoders::start(ends, 1, Limits::default()).await.expect_err("it says nothing");
    assert!(error.to_string().contains("ended at once"), "{error}");
}

/// Leaving frees the place: a picture nobody waits for costs nothing more.
#[tokio::test]
async fn who_leaves_ends_the_decoder() {
    let decoders = started(rogue("sleep 600"), Limits::default()).await;
    for _ in 0..4 {
        let bytes = png(64, 64);
        let look = decoders.look(bytes, Lane::Interactive, in_a_minute());
        assert!(tokio::time::timeout(Duration::from_millis(100), look).await.is_err());
    }
}
