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
/// Nor can a folder that isn't readable be told from one. Unfinished ones
/// (`*.partial-PID`) are none yet, and only counted.
pub fn find(dir: &Path) -> io::Result<(Vec<PathBuf>, usize)> {
    let (mut found, mut skipped) = (Vec::new(), 0);
    look(dir, 0, &mut found, &mut skipped)?;
    found.sort();
    Ok((found, skipped))
}

/// Whether a name ends as that of a folder which is being written.
fn is_partial(name: &str) -> bool {
    let end = name.rsplit_once(".partial-").map(|(_, end)| end);
    end.is_some_and(|end| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit()))
}

fn look(dir: &Path, depth: usize, found: &mut Vec<PathBuf>, skipped: &mut usize) -> io::Result<()> {
    let (mut folders, mut files) = (Vec::new(), 0);
    let entries = fs::read_dir(dir).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = match entries {
        // Reading it as an answer says why not.
        Err(_) if depth > 0 => {
            found.push(dir.to_owned());
            return Ok(());
        }
        entries => entries?,
    };
    for entry in entries {
        // A link is neither: nothing is judged twice, and there are no circles.
        let kind = entry.file_type()?;
        match is_partial(&entry.file_name().to_string_lossy()) {
            true if kind.is_dir() => *skipped += 1,
            false if kind.is_dir() => folders.push(entry.path()),
            _ => {}
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
            look(&folder, depth + 1, found, skipped)?;
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
        let (found, _) = find(root.path()).unwrap();
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
    fn only_unfinished_folders_are_skipped_and_they_are_counted() {
        check(&["a.partial-7x/answer.json"], &["a.partial-7x"]);
        check(&["a.partial-/answer.json"], &["a.partial-"]);
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a.partial-12")).unwrap();
        assert_eq!(find(root.path()).unwrap(), (vec![], 1));
    }

    #[test]
    fn what_is_no_answer_is_found_too_so_that_it_is_reported() {
        check(&["a/answer.json", "b/notes.txt"], &["a", "b"]);
        check(&["a.partial-7/answer.json", "notes.txt"], &[]);
        check(&[], &[]);
    }
}
