//! The network configuration that makes a container runtime call the plugin.
//!
//! A runtime takes the first file of its directory by name, and a node is Ready once there is one. So it is written
//! when pods can be served and not before, and stays for good then: without it a runtime can't even remove pods.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fairlead_cni::protocol::DEFAULT_SOCKET;
use fairlead_files::{Amendment, FileError, Put};
use serde_json::{Map, json};

use super::PLUGIN;
use super::chain::{ChainedPlugin, Own, leads_here, plugin_types};

/// Where runtimes look for configurations: containerd, and CRI-O.
pub const CONF_DIR: &str = "/etc/cni/net.d";

/// The file's name.
pub const CONF_NAME: &str = "10-fairlead.conflist";

/// The mode of a new file. One that is there keeps its own: benchmarks for clusters ask for 0600.
const MODE: u32 = 0o644;

/// What a runtime reads (`ConfFiles` in libcni/api.go).
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// The file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflist {
    directory: PathBuf,
    name: String,
    own: Own,
}

/// What became of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whether it was written.
    pub put: Put,
    /// What was not as it should be, where it was written.
    pub why: &'static str,
    /// The plugins in it that are not of the agent's doing, and stay.
    pub others: Vec<String>,
    /// Where the existing file was copied to, as something in it could not be kept.
    pub copy: Option<PathBuf>,
}

impl Conflist {
    /// The file of this name in this directory, for the agent with this socket, with these plugins behind ours.
    #[must_use]
    pub fn new(directory: &Path, name: &str, socket: &Path, chain: Vec<ChainedPlugin>) -> Self {
        let mut entry = Map::new();
        entry.insert("type".to_owned(), json!(PLUGIN));
        // A runtime passes what it has a value for: containerd and CRI-O none for `ips` and `mac`, Multus what pods ask for.
        entry.insert("capabilities".to_owned(), json!({"ips": true, "mac": true, "portMappings": true}));
        if socket != Path::new(DEFAULT_SOCKET) {
            entry.insert("socket".to_owned(), json!(socket));
        }
        Self { directory: directory.to_owned(), name: name.to_owned(), own: Own { entry, chain } }
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

    /// Writes it, unless it is there already with our part as it should be. Its directory is made where there is none, and
    /// never replaced: a runtime that watches a directory does not see another one of that name.
    ///
    /// A file that can't be kept as it is, an empty one too, most likely since somebody is writing it, is left alone if it has
    /// changed since `broken` was read; give the result's bytes to the next call. If it has not, it is replaced, and copied
    /// before if there is anything in it.
    ///
    /// # Errors
    /// It can't be read or written.
    pub fn put(&self, broken: &mut Option<Vec<u8>>) -> Result<Kept, FileError> {
        let path = self.path();
        fairlead_files::directory(&self.directory)?;
        let mut kept = Kept { put: Put::Same, why: "", others: Vec::new(), copy: None };
        let mut left = None;
        kept.put = fairlead_files::amend(&path, MODE, |existing| {
            let amended = self.own.amend(existing)?;
            if amended.unfinished && existing != broken.as_deref() {
                left = existing.map(<[u8]>::to_vec);
                return None;
            }
            kept.why = amended.why;
            kept.copy = amended.loses.then(|| self.copy_path());
            Some(Amendment { content: amended.content, copy: kept.copy.clone() })
        })?;
        *broken = left;
        let ours = self.own.chain.iter().map(ChainedPlugin::kind).chain([PLUGIN]).collect::<Vec<_>>();
        let content = fs::read(&path).unwrap_or_default();
        kept.others = plugin_types(&content).into_iter().filter(|kind| !ours.contains(&kind.as_str())).collect();
        Ok(kept)
    }

    /// Where a file goes that can't be kept: runtimes read no file of such a name.
    fn copy_path(&self) -> PathBuf {
        self.directory.join(format!("{}.broken", self.name))
    }

    /// The configurations that a runtime takes before this one, and that lead to another network.
    ///
    /// # Errors
    /// The directory is there and can't be read.
    pub fn earlier(&self) -> io::Result<Vec<String>> {
        let names = configurations(&self.directory)?;
        let lead_here = leading_here(&self.directory, &names, &self.name);
        Ok(names.into_iter().take_while(|name| *name < self.name && !lead_here.contains(name)).collect())
    }
}

/// Those of these configurations that give pods to Fairlead, whatever stands in them beside.
#[must_use]
pub fn leading_here(directory: &Path, names: &[String], own: &str) -> Vec<String> {
    let leads = |name: &&String| fs::read(directory.join(name)).is_ok_and(|content| leads_here(&content, own));
    names.iter().filter(leads).cloned().collect()
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
    use serde_json::Value;

    use super::*;

    fn conflist(directory: &Path, socket: &str) -> Conflist {
        Conflist::new(directory, CONF_NAME, Path::new(socket), Vec::new())
    }

    /// A directory that goes with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("fairlead-conflist-{}-{name}", std::process::id())))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _left = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn c15_c18_c40_the_list_is_what_both_generations_of_runtimes_read() {
        let content = |socket| {
            let amended = conflist(Path::new(CONF_DIR), socket).own.amend(None).unwrap();
            serde_json::from_slice::<Value>(&amended.content).unwrap()
        };
        let value = content(DEFAULT_SOCKET);
        assert_eq!(value["cniVersion"], "1.0.0");
        assert_eq!(value["cniVersions"], json!(["1.0.0", "1.1.0"]));
        assert_eq!(value["plugins"][0]["type"], "fairlead-cni");
        assert_eq!(value["plugins"][0]["capabilities"], json!({"ips": true, "mac": true, "portMappings": true}));
        assert!(value["plugins"][0].get("socket").is_none());
        assert_eq!(content("/run/other/cni.sock")["plugins"][0]["socket"], "/run/other/cni.sock");
    }

    #[test]
    fn c29_configurations_are_those_that_a_runtime_reads_in_its_order() {
        let scratch = Scratch::new("order");
        let list = conflist(&scratch.0.join("net.d"), DEFAULT_SOCKET);
        assert!(list.earlier().unwrap().is_empty(), "no directory is none");
        assert_eq!(list.put(&mut None).unwrap().put, Put::New);
        for name in ["87-podman.conflist", "05-cilium.conflist", "00-old.conf", "README", ".fairlead.tmp-x", "9.json"] {
            fs::write(list.directory().join(name), "{}").unwrap();
        }
        assert_eq!(list.earlier().unwrap(), ["00-old.conf", "05-cilium.conflist"]);
        let all = ["00-old.conf", "05-cilium.conflist", CONF_NAME, "87-podman.conflist", "9.json"];
        assert_eq!(configurations(list.directory()).unwrap(), all);
        // A runtime takes the first, and that one leads here: what comes after it does not matter.
        fs::write(list.directory().join("00-multus.conf"), r#"{"type": "multus", "clusterNetwork": "fairlead"}"#)
            .unwrap();
        assert!(list.earlier().unwrap().is_empty());
    }

    #[test]
    fn c35_a_file_that_somebody_may_be_writing_is_left_for_once_then_copied_and_replaced() {
        let scratch = Scratch::new("broken");
        let list = conflist(&scratch.0, DEFAULT_SOCKET);
        fs::create_dir_all(&scratch.0).unwrap();
        let torn = r#"{"plugins": [{"type": "istio-"#;
        fs::write(list.path(), torn).unwrap();
        let mut broken = None;
        assert_eq!(list.put(&mut broken).unwrap().put, Put::Same);
        assert_eq!(broken.as_deref(), Some(torn.as_bytes()));
        // It grows: its writer is still at it.
        let grown = r#"{"plugins": [{"type": "istio-cni"#;
        fs::write(list.path(), grown).unwrap();
        assert_eq!(list.put(&mut broken).unwrap().put, Put::Same);
        let kept = list.put(&mut broken).unwrap();
        assert_eq!((kept.put, broken), (Put::Replaced, None));
        assert_eq!(fs::read_to_string(kept.copy.unwrap()).unwrap(), grown);
        assert_eq!(configurations(&scratch.0).unwrap(), [CONF_NAME], "no runtime reads the copy");
    }

    #[test]
    fn c35_an_empty_file_is_left_for_once_since_its_writer_may_have_just_begun() {
        let scratch = Scratch::new("empty");
        let list = conflist(&scratch.0, DEFAULT_SOCKET);
        list.put(&mut None).unwrap();
        let mut theirs: Value = serde_json::from_slice(&fs::read(list.path()).unwrap()).unwrap();
        theirs["plugins"].as_array_mut().unwrap().push(json!({"type": "istio-cni"}));
        // As a shell does for `cat >FILE`: the file is emptied, and written through the same descriptor.
        let mut writer = fs::File::create(list.path()).unwrap();
        let mut broken = None;
        assert_eq!(list.put(&mut broken).unwrap().put, Put::Same);
        assert_eq!(broken.as_deref(), Some(&b""[..]));
        io::Write::write_all(&mut writer, theirs.to_string().as_bytes()).unwrap();
        let kept = list.put(&mut broken).unwrap();
        assert_eq!((kept.put, kept.others, broken), (Put::Same, vec!["istio-cni".to_owned()], None));
        // Nobody writes it: it is replaced, and there is nothing to copy.
        fs::write(list.path(), "").unwrap();
        let mut broken = None;
        assert_eq!(list.put(&mut broken).unwrap().put, Put::Same);
        let kept = list.put(&mut broken).unwrap();
        assert_eq!((kept.put, kept.copy), (Put::Replaced, None));
    }

    #[test]
    fn c35_a_file_with_our_part_right_is_not_touched_and_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new("mode");
        let list = conflist(&scratch.0, DEFAULT_SOCKET);
        list.put(&mut None).unwrap();
        let mut value: Value = serde_json::from_slice(&fs::read(list.path()).unwrap()).unwrap();
        value["plugins"].as_array_mut().unwrap().push(json!({"type": "istio-cni"}));
        // As another writes it: in one line, and with the mode that benchmarks ask for.
        fs::write(list.path(), value.to_string()).unwrap();
        fs::set_permissions(list.path(), fs::Permissions::from_mode(0o600)).unwrap();
        let kept = list.put(&mut None).unwrap();
        assert_eq!((kept.put, kept.others), (Put::Same, vec!["istio-cni".to_owned()]));
        value["plugins"].as_array_mut().unwrap().remove(0);
        fs::write(list.path(), value.to_string()).unwrap();
        let kept = list.put(&mut None).unwrap();
        assert_eq!((kept.put, kept.why), (Put::Replaced, "our plugin is missing"));
        assert_eq!(plugin_types(&fs::read(list.path()).unwrap()), [PLUGIN, "istio-cni"]);
        assert_eq!(list.path().metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    }
}
