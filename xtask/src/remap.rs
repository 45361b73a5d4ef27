//! What directories of this machine are called in a program, so that its bytes are the same from every checkout.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::paths;

/// The compiler's flags for the work tree, for the sources of crates, and for a directory that is one build's own.
pub(crate) fn flags(own: Option<(PathBuf, &str)>) -> Result<Vec<String>> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let registries = home.context("neither CARGO_HOME nor HOME is set: set one")?.join("registry/src");
    let mut remaps = vec![(paths::workspace().to_owned(), "/fairlead")];
    remaps.extend(own);
    for entry in fs::read_dir(&registries).into_iter().flatten() {
        remaps.push((entry?.path(), "/registry"));
    }
    remaps.sort();
    Ok(remaps.iter().map(|(from, to)| flag(from, to)).collect())
}

fn flag(from: &Path, to: &str) -> String {
    format!("--remap-path-prefix={}={to}", from.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_hide_where_the_checkout_is() {
        let flags = flags(Some(("/opt/rust".into(), "/rust"))).unwrap();
        let checkout = flag(paths::workspace(), "/fairlead");
        assert!(flags.contains(&checkout), "{flags:?}");
        assert!(flags.contains(&"--remap-path-prefix=/opt/rust=/rust".to_owned()), "{flags:?}");
    }
}
