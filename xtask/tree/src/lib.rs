//! Where the work tree is.
//!
//! Developers' programs look for it each time that they run. Cargo does not rebuild what is built when a work tree is moved
//! or copied together with its target directory, so a path that is compiled in would be that of another tree.

#![forbid(unsafe_code)]

pub mod kustomize;

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What only this workspace's Cargo.toml has: its name for this crate.
const MEMBER: &str = "\"xtask/tree\"";

/// Why there is no work tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Nothing says where it is.
    #[error("no work tree of Fairlead in {}, nor above: change into one", .0.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(" or "))]
    None(Vec<PathBuf>),
    /// This process's directory is gone.
    #[error("can't tell the current directory: change into a work tree of Fairlead")]
    Directory(#[from] io::Error),
}

/// The root of the work tree: that of the package which cargo runs (`CARGO_MANIFEST_DIR`), else that of the current
/// directory.
///
/// # Errors
/// Neither is in a work tree of Fairlead.
pub fn root() -> Result<PathBuf, TreeError> {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let starts: Vec<PathBuf> = package.map(Ok).into_iter().chain([env::current_dir()]).collect::<Result<_, _>>()?;
    let manifest = |dir: &Path| fs::read_to_string(dir.join("Cargo.toml")).ok();
    find(&starts, manifest).ok_or(TreeError::None(starts))
}

/// A file or folder of the work tree, by its path from the root.
///
/// # Errors
/// There is no work tree of Fairlead.
pub fn path(name: impl AsRef<Path>) -> Result<PathBuf, TreeError> {
    Ok(root()?.join(name))
}

/// The first directory with our workspace's manifest: each start, and what is above it, before the next start.
fn find(starts: &[PathBuf], manifest: impl Fn(&Path) -> Option<String>) -> Option<PathBuf> {
    let is_ours = |text: String| text.lines().any(|line| line.trim() == "[workspace]") && text.contains(MEMBER);
    starts.iter().flat_map(|start| start.ancestors()).find(|dir| manifest(dir).is_some_and(is_ours)).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "# Fairlead\n[workspace]\nmembers = [\n    \"xtask/tree\",\n]\n";

    fn found(starts: &[&str]) -> Option<PathBuf> {
        let starts: Vec<PathBuf> = starts.iter().map(PathBuf::from).collect();
        find(&starts, |dir| {
            let text = match dir.to_str()? {
                "/home/me/tree" | "/home/me/copy" | "/other/vendor/tree" => OURS,
                "/home/me/tree/xtask" | "/home/me/copy/tests/cluster" => "[package]\nname = \"xtask\"\n",
                "/other" => "[workspace]\nmembers = [\"other\"]\n",
                "/mentions" => "[package]\nname = \"xtask/tree\"\n",
                _ => return None,
            };
            Some(text.to_owned())
        })
    }

    #[test]
    fn the_package_that_cargo_runs_goes_before_the_current_directory() {
        assert_eq!(found(&["/home/me/tree/xtask", "/home/me/copy"]), Some("/home/me/tree".into()));
        assert_eq!(found(&["/home/me/copy/tests/cluster", "/home/me/tree"]), Some("/home/me/copy".into()));
    }

    #[test]
    fn the_current_directory_may_be_anywhere_in_the_tree() {
        for at in ["/home/me/tree", "/home/me/tree/agent/src/bpf", "/home/me/tree/xtask"] {
            assert_eq!(found(&[at]), Some("/home/me/tree".into()), "{at}");
        }
    }

    #[test]
    fn another_workspace_is_not_ours() {
        assert_eq!(found(&["/other/src"]), None);
        assert_eq!(found(&["/mentions"]), None);
        assert_eq!(found(&["/other", "/home/me/tree/dns"]), Some("/home/me/tree".into()), "another package's build");
        assert_eq!(found(&["/other/vendor/tree/dns"]), Some("/other/vendor/tree".into()), "a tree in another's");
    }

    #[test]
    fn no_tree_says_where_it_was_looked_for() {
        assert_eq!(found(&["/tmp"]), None);
        let error = TreeError::None(vec!["/a".into(), "/b".into()]).to_string();
        assert_eq!(error, "no work tree of Fairlead in /a or /b, nor above: change into one");
    }

    #[test]
    fn this_tree_is_found() {
        assert!(path("xtask/tree/src/lib.rs").unwrap().is_file());
    }
}
