//! The decoder's own side: confined before it reads a byte, it answers questions until there are no more.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use super::confine::confine;
use super::wire::{self, Answer, Found, Hello, Question};
use crate::media;

/// The hidden command: `shieldgate decoder MEMORY_BYTES foreground|background`.
pub const COMMAND: &str = "decoder";
pub(super) const BACKGROUND: &str = "background";

/// `None` where the process was started for something else. Called first of all, while there is one thread.
pub fn main() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != COMMAND {
        return None;
    }
    // Without a number it was typed by a person, and is told that there is no such command.
    let memory = args.next()?.parse().ok()?;
    let lane = args.next();
    // What broke is told by the end of the pipe; words could hold content.
    std::panic::set_hook(Box::new(|_| {}));
    if lane.as_deref() == Some(BACKGROUND) {
        give_way();
    }
    Some(match serve(memory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// For what nobody in particular waits for: whoever else wants the core has it at once. A mere priority would
/// not do: Linux lets a task of the lowest finish its slice, milliseconds for each wake-up of an upload.
/// Refused it is no reason not to decode.
fn give_way() {
    // SAFETY: zeros are the only parameters this policy has.
    unsafe {
        let none: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none);
    }
}

fn serve(memory: u64) -> io::Result<()> {
    let mut questions = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut answers = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let confinement = confine(memory)?;
    answers.write_all(&wire::framed(&Hello { confinement })?)?;
    while let Some(question) = next(&mut questions)? {
        let Question { bytes, limits } = question;
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let mut file = Vec::with_capacity(length);
        if (&mut questions).take(bytes).read_to_end(&mut file)? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match media::look(&file, &limits) {
            Ok(looked) => {
                answers.write_all(&wire::framed(&Answer::Looked(Found::of(&looked)))?)?;
                for view in &looked.views {
                    answers.write_all(view.picture.rgb())?;
                }
            }
            Err(refused) => answers.write_all(&wire::framed(&Answer::Refused(refused))?)?,
        }
    }
    Ok(())
}

/// `None`: the service has no more.
fn next(questions: &mut File) -> io::Result<Option<Question>> {
    let mut prefix = [0; 4];
    match questions.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = wire::length(prefix).ok_or(io::ErrorKind::InvalidData)?;
    let mut header = vec![0; length];
    questions.read_exact(&mut header)?;
    Ok(Some(serde_json::from_slice(&header)?))
}
