//! What a decoder may do: compute, and use the pipes and the memory it was given.
//!
//! Three layers, each of which would do alone where it is there: limits of resources (always), Landlock (Linux
//! 5.13; takes files and, since 6.7, the network away) and a seccomp filter (takes all system calls but a few
//! away). They bind the calling thread, so they come before any other thread exists.

use std::fs::File;
use std::io;
use std::net::UdpSocket;

use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, Scope};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde::{Deserialize, Serialize};

/// CPU time of a process in its life, for one that nobody watches any more. Those that are watched are ended
/// and replaced before.
pub(super) const CPU_SECONDS_MAX: u64 = 120;

/// What a decoder found that it can not do, by trying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    pub no_files: bool,
    pub no_network: bool,
    pub no_processes: bool,
    /// What could not be put in place, in words.
    pub missing: Vec<String>,
}

impl Confinement {
    pub fn is_complete(&self) -> bool {
        self.no_files && self.no_network && self.no_processes && self.missing.is_empty()
    }
}

/// For good. `memory`: bytes that may be used from here on. An error is one of the limits of resources.
pub(super) fn confine(memory: u64) -> io::Result<Confinement> {
    let mut missing = Vec::new();
    // First what opens files of its own.
    let used = std::fs::read_to_string("/proc/self/statm").ok();
    let used = used.and_then(|statm| statm.split(' ').next()?.parse::<u64>().ok());
    if let Err(error) = landlock() {
        missing.push(format!("Landlock: {error}"));
    }
    let mut limits = vec![
        (Resource::Cpu, CPU_SECONDS_MAX),
        // None of those that are open is closed by it.
        (Resource::Nofile, 0),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ];
    match used {
        Some(pages) => {
            let used = pages.saturating_mul(rustix::param::page_size() as u64);
            limits.push((Resource::As, used.saturating_add(memory)));
        }
        None => missing.push("a limit of memory: /proc cannot be read".to_owned()),
    }
    for (resource, limit) in limits {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    if let Err(error) = seccomp() {
        missing.push(format!("seccomp: {error}"));
    }
    Ok(Confinement {
        no_files: File::open("/").is_err(),
        no_network: UdpSocket::bind("127.0.0.1:0").is_err(),
        no_processes: std::thread::Builder::new().spawn(|| {}).is_err(),
        missing,
    })
}

/// As much as this kernel knows; an error where it knows nothing.
fn landlock() -> Result<(), Box<dyn std::error::Error>> {
    let abi = ABI::V6;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()?;
    if status.ruleset == landlock::RulesetStatus::NotEnforced {
        return Err("this kernel does not have it".into());
    }
    Ok(())
}

/// Everything else fails with EPERM.
fn seccomp() -> Result<(), Box<dyn std::error::Error>> {
    let arch = std::env::consts::ARCH.try_into()?;
    let rules = allowed()?.into_iter().collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}

/// What computing, allocating, reading and writing take; and ending, by panic too.
fn allowed() -> seccompiler::Result<Vec<(i64, Vec<SeccompRule>)>> {
    let plain = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let mut allowed: Vec<_> = plain.into_iter().map(|call| (call, Vec::new())).collect();
    let dword = || SeccompCmpArgLen::Dword;
    // Memory, but none that runs: third argument of both.
    let executable = u64::try_from(libc::PROT_EXEC).unwrap_or(4);
    let not_executable = SeccompCondition::new(2, dword(), SeccompCmpOp::MaskedEq(executable), 0)?;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        allowed.push((call, vec![SeccompRule::new(vec![not_executable.clone()])?]));
    }
    // `abort` signals itself, and nobody else.
    let own = SeccompCondition::new(0, dword(), SeccompCmpOp::Eq, u64::from(std::process::id()))?;
    allowed.push((libc::SYS_tgkill, vec![SeccompRule::new(vec![own])?]));
    Ok(allowed)
}
