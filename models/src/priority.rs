//! Which threads stand back for which: whoever judges takes the cores that others leave.
//!
//! A judge computes for as long as a model takes, on every core. What is done around it for the next upload
//! (reading, decoding, recording) takes a fraction of that and is waited for by all: at one priority each of
//! its steps would wait for its turn behind a run that is not even this upload's.

use std::panic::resume_unwind;

/// Of the kernel's nineteen. A tenth of a core that is wanted by others as well: judges go on, slowly.
const BEHIND: i32 = 10;

/// The calling thread, and every thread that it starts from here on, stands behind those that did not.
pub fn stand_back() {
    // Refused it is no reason not to judge.
    let _ = rustix::process::nice(BEHIND);
}

/// What `make` starts stands back, the calling thread does not: it could never come forward again.
pub(crate) fn standing_back<T: Send>(name: &str, make: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let made = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, || {
            stand_back();
            make()
        })?;
        Ok(made.join().unwrap_or_else(|why| resume_unwind(why)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the calling thread: the 17th field behind the name.
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux has it");
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in brackets");
        fields.split(' ').nth(16).expect("it has them all").parse().expect("a number")
    }

    #[test]
    fn what_is_started_stands_back_and_who_starts_it_does_not() {
        let before = niceness();
        let behind = (before + BEHIND).min(19);
        let of_both =
            standing_back("pool", || (niceness(), std::thread::spawn(niceness).join().expect("it ends")));
        assert_eq!(of_both.expect("it starts"), (behind, behind));
        assert_eq!(niceness(), before);
    }
}
