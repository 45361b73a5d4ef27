//! Where the programs are that the lab starts.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// The path of a program of this workspace: in `FAIRLEAD_BIN_DIR`, else where this one was built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let directory = match std::env::var_os("FAIRLEAD_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let mut directory = std::env::current_exe()?;
            directory.pop();
            if directory.ends_with("deps") {
                directory.pop();
            }
            directory
        }
    };
    let path = directory.join(name);
    if !path.exists() {
        bail!(
            "{} is not built: `cargo xtask test` builds it, or name its directory in FAIRLEAD_BIN_DIR",
            path.display()
        );
    }
    Ok(path)
}
