//! Who used the cores: what a ratio of rates can't say, the CPU time behind each upload can.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// CPU time that groups of processes have used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CpuTime {
    /// This program.
    pub(crate) load: Duration,
    pub(crate) gate: Duration,
    /// The gate's Postgres with its back ends, also those that have ended.
    pub(crate) postgres: Duration,
}

impl CpuTime {
    /// Of the gate and of the Postgres with these process ids.
    pub(crate) fn look(gate: u32, postmaster: u32) -> Self {
        let all = processes(Path::new("/proc"));
        let of = |pid: u32| all.get(&pid).map_or(Duration::ZERO, |process| process.own);
        let mut postgres = all.get(&postmaster).map_or(Duration::ZERO, |process| process.own + process.ended);
        for process in all.values().filter(|process| process.parent == postmaster) {
            postgres += process.own;
        }
        Self { load: of(std::process::id()), gate: of(gate), postgres }
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            load: self.load.saturating_sub(before.load),
            gate: self.gate.saturating_sub(before.gate),
            postgres: self.postgres.saturating_sub(before.postgres),
        }
    }
}

/// CPU time by uploads, in milliseconds.
pub(crate) fn milliseconds_each(time: Duration, uploads: u64) -> f64 {
    time.as_secs_f64() * 1000.0 / uploads.max(1) as f64
}

#[derive(Debug, PartialEq)]
struct Process {
    parent: u32,
    own: Duration,
    /// Of children that ended and were waited for.
    ended: Duration,
}

fn processes(proc: &Path) -> HashMap<u32, Process> {
    // SAFETY: sysconf takes a number and touches no memory of ours.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let tick = Duration::from_secs(1) / u32::try_from(ticks).unwrap_or(100).max(1);
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let read = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        Some((pid, parse(&stat, tick)?))
    };
    entries.filter_map(read).collect()
}

/// `pid (name) state ppid …`; the name may hold anything, blanks and parentheses included.
fn parse(stat: &str, tick: Duration) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u32>().ok();
    Some(Process {
        parent: ticks(1)?,
        own: tick * (ticks(11)? + ticks(12)?),
        ended: tick * (ticks(13)? + ticks(14)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_s_times_are_read_whatever_its_name() {
        let stat = "77 (a) b (c) S 5 77 77 0 -1 4194560 100 0 0 0 250 50 30 20 20 0 1 0 0 0 0";
        let tick = Duration::from_millis(10);
        let expected = Process { parent: 5, own: Duration::from_secs(3), ended: Duration::from_millis(500) };
        assert_eq!(parse(stat, tick), Some(expected));
        assert_eq!(parse("77 (a", tick), None);
    }

    #[test]
    fn our_own_time_is_found() {
        let before = CpuTime::look(0, 0);
        let mut sum = 0_u64;
        while CpuTime::look(0, 0).since(&before).load.is_zero() {
            sum = std::hint::black_box((0..100_000).fold(sum, u64::wrapping_add));
        }
    }
}
