//! Somebody who starts an engine, says its process id and its socket, and
//! waits to be killed.

use std::io::Write;
use std::path::Path;

use crate::engine::How;
use crate::tests::spec;

pub fn run(run_dir: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let running = provider::local::start(spec(run_dir, How::Good))
            .await
            .unwrap();
        println!("{} {}", running.pid().unwrap(), running.socket().display());
        std::io::stdout().flush().unwrap();
        running.exited().await.unwrap();
    });
}
