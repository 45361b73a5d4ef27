//! The network configuration that makes a container runtime call the plugin.
//!
//! A runtime takes the first file of its directory by name, and a node is Ready once there is one. So it is written
//! when pods can be served and not before, and stays for good then: without it a runtime can't even remove pods.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fairlead_cni::protocol::DEFAULT_SOCKET;
use fairlead_files::{FileError, Put};
use serde_json::json;

/// Where runtimes look for configurations: containerd, and CRI-O.
pub const CONF_DIR: &str = "/etc/cni/net.d";

/// The file's name.
pub const CONF_NAME: &str = "10-fairlead.conflist";

/// What a runtime reads (`ConfFiles` in libcni/api.go).
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// The file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflist {
    directory: PathBuf,
    name: String,
    content: String,
}

impl Conflist {
    /// The file of this name in this directory, for the agent with this socket.
    #[must_use]
    pub fn new(directory: &Path, name: &str, socket: &Path) -> Self {
        let mut plugin = json!({"type": "fairlead-cni", "capabilities": {"portMappings": true}});
        if socket != Path::new(DEFAULT_SOCKET) {
            plugin["socket"] = json!(socket);
        }
        // Runtimes that know `cniVersions` take the highest, and with it STATUS and GC; others take `cniVersion`.
        let list = json!({
            "cniVersion": "1.0.0",
            "cniVersions": ["1.0.0", "1.1.0"],
            "name": "fairlead",
            "plugins": [plugin],
        });
        Self { directory: directory.to_owned(), name: name.to_owned(), content: format!("{list:#}\n") }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes it, unless it is there already. Its directory is made where there is none, and never replaced: a runtime
    /// that watches a directory does not see another one of that name.
    ///
    /// # Errors
    /// It can't be written.
    pub fn put(&self) -> Result<Put, FileError> {
        fairlead_files::directory(&self.directory)?;
        fairlead_files::put(&self.path(), self.content.as_bytes(), 0o644)
    }

    /// The configurations that a runtime takes before this one.
    ///
    /// # Errors
    /// The directory is there and can't be read.
    pub fn earlier(&self) -> io::Result<Vec<String>> {
        Ok(configurations(&self.directory)?.into_iter().take_while(|name| *name < self.name).collect())
    }
}

/// The configurations of a directory, in the order of a runtime.
///
/// # Errors
/// The directory is there and can't be read.
pub fn configurations(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_one = path.extension().is_some_and(|ext| EXTENSIONS.iter().any(|known| ext == *known));
        if let (true, false, Some(name)) = (is_one, path.is_dir(), path.file_name()) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c15_c18_the_list_is_what_both_generations_of_runtimes_read() {
        let list = Conflist::new(Path::new(CONF_DIR), CONF_NAME, Path::new(DEFAULT_SOCKET));
        let value: serde_json::Value = serde_json::from_str(&list.content).unwrap();
        assert_eq!(value["cniVersion"], "1.0.0");
        assert_eq!(value["cniVersions"], json!(["1.0.0", "1.1.0"]));
        assert_eq!(value["plugins"][0]["type"], "fairlead-cni");
        assert_eq!(value["plugins"][0]["capabilities"]["portMappings"], true);
        assert!(value["plugins"][0].get("socket").is_none());
        let other = Conflist::new(Path::new(CONF_DIR), CONF_NAME, Path::new("/run/other/cni.sock"));
        assert!(other.content.contains(r#""socket": "/run/other/cni.sock""#), "{}", other.content);
    }

    #[test]
    fn c29_configurations_are_those_that_a_runtime_reads_in_its_order() {
        let directory = std::env::temp_dir().join(format!("fairlead-conflist-{}", std::process::id()));
        let list = Conflist::new(&directory.join("net.d"), CONF_NAME, Path::new(DEFAULT_SOCKET));
        assert!(list.earlier().unwrap().is_empty(), "no directory is none");
        assert_eq!(list.put().unwrap(), Put::New);
        for name in ["87-podman.conflist", "05-cilium.conflist", "00-old.conf", "README", ".fairlead.tmp-x", "9.json"] {
            fs::write(list.directory().join(name), "{}").unwrap();
        }
        assert_eq!(list.earlier().unwrap(), ["00-old.conf", "05-cilium.conflist"]);
        let all = ["00-old.conf", "05-cilium.conflist", CONF_NAME, "87-podman.conflist", "9.json"];
        assert_eq!(configurations(list.directory()).unwrap(), all);
        fs::remove_dir_all(directory).unwrap();
    }
}
