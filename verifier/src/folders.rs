//! Finds saved answers: a folder that is one, or that holds thousands.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Levels of folders that are looked into.
const DEPTH_MAX: usize = 8;

/// Files that only a saved answer has.
const MARKS: [&str; 4] = ["answer.json", "request.json", "receipt.jws", "response.txt"];

/// Every folder under `dir`, itself included, that is or should be a saved answer, by name.
///
/// A folder without folders in it should be one, and is then reported as what it is.
/// Unfinished ones (`*.partial-PID`) are none yet.
pub fn find(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    look(dir, 0, &mut found)?;
    found.sort();
    Ok(found)
}

fn look(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let (mut folders, mut files) = (Vec::new(), 0);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A link is neither: nothing is judged twice, and there are no circles.
        let kind = entry.file_type()?;
        let partial = entry.file_name().to_string_lossy().contains(".partial-");
        if kind.is_dir() && !partial {
            folders.push(entry.path());
        }
        files += usize::from(kind.is_file());
    }
    let marked = MARKS.iter().any(|name| dir.join(name).is_file());
    if marked || (folders.is_empty() && files > 0 && depth > 0) {
        found.push(dir.to_owned());
        return Ok(());
    }
    if depth < DEPTH_MAX {
        for folder in folders {
            look(&folder, depth + 1, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[&str], expected: &[&str]) {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = find(root.path()).unwrap();
        let found: Vec<_> = (found.iter())
            .map(|path| path.strip_prefix(root.path()).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn one_answer_or_many_at_any_depth() {
        check(&["answer.json", "request.json"], &[""]);
        check(&["b/answer.json", "a/answer.json"], &["a", "b"]);
        check(&["x/y/z/answer.json", "x/a/receipt.jws"], &["x/a", "x/y/z"]);
    }

    #[test]
    fn what_is_no_answer_is_found_too_so_that_it_is_reported() {
        check(&["a/answer.json", "b/notes.txt"], &["a", "b"]);
        check(&["a.partial-7/answer.json", "notes.txt"], &[]);
        check(&[], &[]);
    }
}
