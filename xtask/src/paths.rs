//! Where things are: the work tree, the target directory, the cache that outlives both.

use std::{
    env,
    path::{Path, PathBuf},
    process::exit,
    sync::LazyLock,
};

/// The root of the work tree. Where there is none no command of ours has anything to do, so the process ends and says so.
pub(crate) fn workspace() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        fairlead_tree::root().unwrap_or_else(|error| {
            eprintln!("error: {error}");
            exit(1)
        })
    });
    &ROOT
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// The committed eBPF object.
pub(crate) fn object() -> PathBuf {
    workspace().join("ebpf/fairlead.bpf.o")
}

/// What set-up downloads and builds: shared by all work trees, and may be deleted at any time.
pub(crate) use fairlead_cluster::cache;

/// Finds a program in PATH, or where Debian keeps those for root.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
