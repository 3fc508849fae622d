//! A folder of labelled pictures: `FOLDER/violence/…` break `violence`, `FOLDER/safe/…` break nothing.
//!
//! What lies in a subfolder is labelled by its name alone: of a picture in `violence/` nobody said that it is
//! not `sexual`. Several labels for one picture are for a file of rows.

use std::path::Path;

use super::{Content, DataError, Labels, Row};

/// In the order of their names, so that rows have the same numbers at every run.
pub(super) fn read(folder: &Path) -> Result<Vec<Row>, DataError> {
    let fault = |path: &Path, message: &str| DataError::Folder {
        path: path.to_path_buf(),
        message: message.to_owned(),
    };
    let mut rows = Vec::new();
    for label in entries(folder)? {
        if !label.is_dir() {
            let message = "it lies in no subfolder that labels it; pictures lie in `safe/` and in a subfolder \
                           for each policy, or are named in a file of rows";
            return Err(fault(&label, message));
        }
        let name = label.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| fault(&label, "its name is not UTF-8"))?;
        let labels = Labels::only(name);
        for file in entries(&label)? {
            if file.is_dir() {
                return Err(fault(&file, "a folder in a folder of pictures: put its pictures one level up"));
            }
            let number = rows.len() as u64 + 1;
            rows.push(Row { number, content: Content::Picture(file), labels: labels.clone() });
        }
    }
    Ok(rows)
}

/// Without hidden ones.
fn entries(folder: &Path) -> Result<Vec<std::path::PathBuf>, DataError> {
    let read = |source| DataError::Read { path: folder.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subfolders_label_what_is_in_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |path: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("makes a folder");
            std::fs::write(path, b"").expect("writes");
        };
        for path in ["violence/b.png", "violence/a.png", "violence/.hidden", "safe/c.png", ".git/x"] {
            write(path);
        }
        let rows = read(folder.path()).expect("rows");
        let found: Vec<_> = rows.iter().map(|row| (row.number, row.labels.harm())).collect();
        assert_eq!(found, [(1, Some(false)), (2, Some(true)), (3, Some(true))]);
        let names = rows.iter().map(|row| match &row.content {
            Content::Picture(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            Content::Text(_) => None,
        });
        assert_eq!(names.collect::<Vec<_>>(), ["c.png", "a.png", "b.png"].map(|name| Some(name.to_owned())));

        write("stray.png");
        let error = read(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("stray.png") && error.contains("`safe/`"), "{error}");
        std::fs::remove_file(folder.path().join("stray.png")).expect("removes");
        write("safe/deeper/d.png");
        let error = read(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("deeper") && error.contains("one level up"), "{error}");
    }
}
