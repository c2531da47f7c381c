//! How far a client has come that doesn't say so: the length of the largest
//! file that it has written.

use std::fs;
use std::path::Path;

/// The length of the largest file in a folder, however deep; 0 if there is none. Files come and
/// go while this looks, so what can't be read isn't there.
pub(super) fn largest_file(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let lengths = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => largest_file(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    lengths.max().unwrap_or(0)
}
