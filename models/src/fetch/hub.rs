//! Fetches a file from the Hugging Face hub, through its own client, so that
//! the user's token and endpoint are honoured.

use std::path::{Path, PathBuf};
use std::thread;

use hf_hub::HFClientSync;

use super::error::SourceError;
use super::{LOOK_EVERY, watch};

/// The file, somewhere in `work`.
pub(super) fn fetch(
    repo: &str,
    revision: &str,
    file: &str,
    work: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<PathBuf, SourceError> {
    let (owner, name) = repo.split_once('/').unwrap_or(("", repo));
    let folder = work.join("hub");
    let download = || {
        let client = HFClientSync::new()?;
        client
            .model(owner, name)
            .download_file()
            .filename(file)
            .revision(revision)
            .local_dir(folder.clone())
            .send()
    };
    let delivered = thread::scope(|scope| {
        let download = scope.spawn(download);
        while !download.is_finished() {
            progress(watch::largest_file(&folder));
            thread::sleep(LOOK_EVERY);
        }
        download.join()
    });
    let failed = |said: String| SourceError::Client {
        command: "hf-hub",
        status: "error".to_owned(),
        said,
    };
    match delivered {
        Ok(Ok(path)) => Ok(path),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("it panicked".to_owned())),
    }
}
