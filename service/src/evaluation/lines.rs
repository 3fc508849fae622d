//! A file of labelled rows, one a line: `{"text": "…", "labels": {"hate": 1, "violence": 0}}`, or `file` for
//! `text`, the path of a picture from the file's own folder. Other keys are for people.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Content, DataError, Labels, Row};

/// More than any text that the gate takes, in whatever escapes.
const LINE_BYTES_MAX: u64 = 16 << 20;

#[derive(Deserialize)]
struct Line {
    text: Option<String>,
    file: Option<PathBuf>,
    labels: Option<Map<String, Value>>,
}

struct Lines {
    path: PathBuf,
    from: BufReader<File>,
    line: u64,
    ended: bool,
}

/// One row at a time; blank lines are none.
pub(super) fn read(
    path: &Path,
) -> Result<impl Iterator<Item = Result<Row, DataError>> + Send + use<>, DataError> {
    let file = File::open(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
    Ok(Lines { path: path.to_path_buf(), from: BufReader::new(file), line: 0, ended: false })
}

impl Iterator for Lines {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.line() {
                Ok(None) => {}
                Ok(Some(row)) => return Some(Ok(row)),
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl Lines {
    /// None for a blank line, and at the end.
    fn line(&mut self) -> Result<Option<Row>, DataError> {
        self.line += 1;
        let fault = |message: String| DataError::Line { path: self.path.clone(), line: self.line, message };
        let mut bytes = Vec::new();
        let mut bounded = self.from.by_ref().take(LINE_BYTES_MAX);
        let count = bounded
            .read_until(b'\n', &mut bytes)
            .map_err(|source| DataError::Read { path: self.path.clone(), source })?;
        if count as u64 == LINE_BYTES_MAX && bytes.last() != Some(&b'\n') {
            return Err(fault(format!("the line is longer than {LINE_BYTES_MAX} bytes")));
        }
        if count == 0 {
            self.ended = true;
            return Ok(None);
        }
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        let line: Line = serde_json::from_slice(&bytes).map_err(|error| {
            let text = error.to_string();
            // The library counts lines too, and there is but one here.
            let what = text.split(" at line").next().unwrap_or(&text);
            fault(format!("{what} (column {})", error.column()))
        })?;
        let content = match (line.text, line.file) {
            (Some(text), None) => Content::Text(text),
            (None, Some(file)) => {
                let folder = self.path.parent().unwrap_or(Path::new(""));
                Content::Picture(folder.join(file))
            }
            (Some(_), Some(_)) => return Err(fault("a row has `text` or `file`, not both".to_owned())),
            (None, None) => return Err(fault("the row has neither `text` nor `file`".to_owned())),
        };
        let labels = line.labels.ok_or_else(|| {
            fault("the row has no `labels`; `{}` is for a row that nobody labelled".to_owned())
        })?;
        let labels = Labels::read(&labels).map_err(fault)?;
        Ok(Some(Row { number: self.line, content, labels }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[u8]) -> Result<Vec<Row>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, text).expect("writes");
        let rows: Result<Vec<Row>, DataError> = read(&path).expect("opens").collect();
        rows.map_err(|error| error.to_string().replace(&path.display().to_string(), "rows.jsonl"))
    }

    #[test]
    fn rows_are_read_one_a_line() {
        let text = "{\"text\": \"a\\nb\", \"labels\": {\"hate\": 1}, \"id\": 7}\n\n \r\n{\"text\": \"\", \"labels\": {}}";
        let rows = rows(text.as_bytes()).expect("rows");
        let texts: Vec<_> = rows.iter().map(|row| (row.number, &row.content)).collect();
        assert_eq!(texts, [(1, &Content::Text("a\nb".to_owned())), (4, &Content::Text(String::new()))]);
        assert_eq!(rows[0].labels, Labels::only("hate"));
        assert_eq!(
            super::read(Path::new("/nowhere/rows.jsonl")).err().map(|error| error.to_string()).as_deref(),
            Some("`/nowhere/rows.jsonl` can't be read")
        );
    }

    #[test]
    fn files_lie_beside_the_rows() {
        let found = rows(b"{\"file\": \"a/b.png\", \"labels\": {\"x\": 0}}").expect("rows");
        let [Row { content: Content::Picture(path), .. }] = found.as_slice() else { panic!("{found:?}") };
        assert!(path.is_absolute() && path.ends_with("a/b.png"), "{path:?}");
    }

    #[test]
    fn what_is_no_row_is_named_by_its_line() {
        let good = "{\"text\": \"a\", \"labels\": {}}\n";
        for (bad, said) in [
            ("{\"text\": \"a\"}", "no `labels`"),
            ("{\"labels\": {}}", "neither `text` nor `file`"),
            ("{\"text\": \"a\", \"file\": \"b\", \"labels\": {}}", "not both"),
            ("{\"text\": 1, \"labels\": {}}", "invalid type"),
            ("{\"text\": \"a\", \"labels\": {\"hate\": 3}}", "label `hate` is 3"),
            ("[]", "(column"),
            ("not json", "(column"),
            ("{\"text\": \"\\ud800\", \"labels\": {}}", "(column"),
        ] {
            let error = rows(format!("{good}{bad}\n{good}").as_bytes()).expect_err(bad);
            assert!(error.starts_with("rows.jsonl:2: ") && error.contains(said), "{bad}: {error}");
        }
        assert!(rows(b"{\"text\": \"\xff\", \"labels\": {}}").is_err());
        let long = vec![b'a'; LINE_BYTES_MAX as usize + 1];
        assert!(rows(&long).expect_err("too long").contains("longer than"));
    }
}
