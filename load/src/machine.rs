//! What the numbers were measured on: a number without its machine and its load is worth nothing.

use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) cpu: String,
    pub(crate) memory_gib: Option<f64>,
    /// Processes that ran or wanted to, on average over the last minute, when the run began.
    pub(crate) load_before: Option<f64>,
    /// The same at its end; the run's own work is in it.
    pub(crate) load_after: Option<f64>,
}

impl Machine {
    /// At the beginning of a run.
    pub(crate) fn look() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown CPU").to_owned(),
            memory_gib: field(&meminfo, "MemTotal").and_then(gib),
            load_before: load(),
            load_after: None,
        }
    }

    /// At its end.
    pub(crate) fn look_again(&mut self) {
        self.load_after = load();
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let load = |load: Option<f64>| load.map_or_else(|| "?".to_owned(), |load| format!("{load:.1}"));
        let memory = self.memory_gib.map(|gib| format!(", {gib:.0} GiB")).unwrap_or_default();
        format!(
            "{} × {}{memory}; load average {} before, {} after",
            self.cores,
            self.cpu,
            load(self.load_before),
            load(self.load_after)
        )
    }

    /// Others were at work: more wanted to run than there are cores, before this run began.
    pub(crate) fn was_busy(&self) -> bool {
        self.load_before.is_some_and(|load| load > self.cores as f64 * BUSY)
    }
}

/// Of the cores; a quiet machine stays well below.
const BUSY: f64 = 0.5;

fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// `name : value`, the first of its name.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim())
    })
}

/// `24628560 kB`
fn gib(text: &str) -> Option<f64> {
    Some(text.strip_suffix(" kB")?.trim().parse::<f64>().ok()? / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_is_read() {
        let text = "processor\t: 0\nmodel name\t: A CPU: fast\nmodel name\t: B\n";
        assert_eq!(field(text, "model name"), Some("A CPU: fast"));
        assert_eq!(gib("1048576 kB"), Some(1.0));
        assert_eq!(gib("many"), None);
    }

    #[test]
    fn a_busy_machine_is_called_busy() {
        let machine = |load| Machine {
            cores: 2,
            cpu: String::new(),
            memory_gib: None,
            load_before: load,
            load_after: None,
        };
        assert!(machine(Some(4.2)).was_busy());
        assert!(!machine(Some(0.3)).was_busy() && !machine(None).was_busy());
    }
}
