//! A run as a table for the terminal.

use std::fmt::Write as _;

use super::Report;

impl Report {
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}: {}, for {} s\n", self.profile, self.asked, self.seconds);
        line(&mut text, "gate", self.gate.line());
        line(&mut text, "machine", self.machine.line());
        if self.machine.was_busy() {
            line(&mut text, "", "the machine was busy before the run began: these numbers say little");
        }
        text.push('\n');
        let heading =
            ["stream", "outcome", "count", "a second", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms"];
        let rows: Vec<Vec<String>> = self.rows.iter().map(cells).collect();
        text.push_str(&table(&heading, &rows));
        text.push('\n');
        for (stream, count) in &self.not_sent {
            line(&mut text, "not sent", format!("{count} of {stream}: `--open-max` were under way"));
        }
        for (status, said) in &self.retry_after_s {
            let text_of = format!(
                "{} to {} s, half of them at most {} s ({} answers with {status})",
                said.min, said.max, said.p50, said.count
            );
            line(&mut text, "Retry-After", text_of);
        }
        for (fault, count) in &self.faults {
            line(&mut text, "fault", format!("{fault}: {count} ×"));
        }
        let generator = &self.generator;
        let lag = format!(
            "{} sent by schedule, later than due by p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            generator.sent, generator.lag_p50_ms, generator.lag_p99_ms, generator.lag_max_ms
        );
        line(&mut text, "generator", lag);
        text.truncate(text.trim_end().len());
        text
    }
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    // Writing into a String doesn't fail.
    let _ = writeln!(text, "{name:<12} {value}");
}

fn cells(row: &super::Row) -> Vec<String> {
    let ms = |ms: f64| format!("{ms:.1}");
    let latency = &row.latency;
    vec![
        row.stream.to_owned(),
        row.outcome.clone(),
        row.count.to_string(),
        format!("{:.1}", row.a_second),
        ms(latency.p50_ms),
        ms(latency.p90_ms),
        ms(latency.p95_ms),
        ms(latency.p99_ms),
        ms(latency.max_ms),
    ]
}

/// Columns under a heading, two blanks apart; all but the first two are numbers.
fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(heading.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    let mut text = String::new();
    for row in table.lines() {
        // The library pads both sides of every column.
        text.push_str(row.strip_prefix(' ').unwrap_or(&row).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::a_report;

    #[test]
    fn the_table_names_streams_outcomes_and_what_went_wrong() {
        let text = a_report().text();
        let row = |begin: &str| {
            let line = text.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{text}"));
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("bulk         200 judged")[3], "499");
        assert_eq!(row("interactive  429 overloaded")[3], "100");
        assert!(text.contains("no answer: timed out"), "{text}");
        assert!(text.contains("Retry-After  2 to 2 s"), "{text}");
        assert!(!text.contains("the machine was busy"), "{text}");
    }
}
