//! The plugins beside ours in the CNI configuration: which versions they serve, by their own word.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use fairlead_cni::Version;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::super::facts::OlderPlugin;
use super::Places;
use crate::install::PLUGIN;
use crate::install::chain::{highest_version, plugin_types};

/// How long a plugin may take to say its versions. It has nothing to look up.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a plugin answers to VERSION.
#[derive(Debug, Deserialize)]
struct Versions {
    #[serde(rename = "supportedVersions")]
    supported: Vec<String>,
}

/// The plugins of our configuration that do not serve the version with which they are called. Those in `missing` can't be
/// asked.
pub(super) async fn older(places: &Places, missing: &[String], unseen: &mut Vec<(String, String)>) -> Vec<OlderPlugin> {
    let content = fs::read(places.cni_conf_dir.join(&places.cni_conf_name)).unwrap_or_default();
    let Some(wanted) = highest_version(&content) else { return Vec::new() };
    let mut kinds = plugin_types(&content);
    kinds.retain(|kind| kind != PLUGIN && !missing.contains(kind));
    kinds.sort();
    kinds.dedup();
    let mut found = Vec::new();
    for kind in kinds {
        match supported(&places.cni_bin_dir.join(&kind), wanted).await {
            Ok(versions) if versions.contains(&wanted) => {}
            Ok(versions) => {
                let serves = versions.into_iter().filter(|version| *version < wanted).max();
                found.push(OlderPlugin { kind, wanted, serves });
            }
            Err(error) => unseen.push((format!("versions of the plugin {kind}"), error.to_string())),
        }
    }
    found
}

/// Executes a plugin as a runtime does to learn its versions (section 3 of the specification, VERSION). Gives those that
/// ours serves too.
async fn supported(plugin: &Path, version: Version) -> io::Result<Vec<Version>> {
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", "VERSION")
        .env("CNI_PATH", plugin.parent().unwrap_or(plugin))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read it has ended by then, maybe.
        let _closed = input.write_all(format!("{{\"cniVersion\":\"{version}\"}}").as_bytes()).await;
    }
    let Ok(output) = timeout(PATIENCE, child.wait_with_output()).await else {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer to VERSION"));
    };
    let Versions { supported } = serde_json::from_slice(&output?.stdout)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("no answer to VERSION: {error}")))?;
    Ok(supported.iter().filter_map(|text| Version::parse(Some(text)).ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    /// A node's directories, that go with it.
    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _left = fs::remove_dir_all(&self.0);
        }
    }

    impl Scratch {
        fn new(types: &[&str]) -> Self {
            let scratch = Self(std::env::temp_dir().join(format!("fairlead-plugins-{}", std::process::id())));
            fs::create_dir_all(&scratch.0).unwrap();
            let plugins: Vec<_> = types.iter().map(|kind| serde_json::json!({"type": kind})).collect();
            let list =
                serde_json::json!({"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "plugins": plugins});
            fs::write(scratch.0.join("10-x.conflist"), list.to_string()).unwrap();
            scratch
        }

        /// A plugin that reads what it gets, and then does this.
        fn plugin(&self, name: &str, then: &str) {
            let path = self.0.join(name);
            fs::write(&path, format!("#!/bin/sh\nread -r input\n{then}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn places(&self) -> Places {
            Places {
                root: "/".into(),
                run_dir: self.0.clone(),
                bpffs: self.0.clone(),
                cgroup_root: None,
                proc_sys: self.0.clone(),
                cni_bin_dir: self.0.clone(),
                cni_conf_dir: self.0.clone(),
                cni_conf_name: "10-x.conflist".into(),
                kubelet_kubeconfig: self.0.clone(),
                api_server: None,
            }
        }
    }

    #[tokio::test]
    async fn c37_plugins_say_whether_they_serve_the_version_of_the_list() {
        let scratch = Scratch::new(&["fairlead-cni", "new", "old", "ancient", "mute", "stuck", "absent"]);
        let says =
            |versions: &str| format!(r#"[ "$CNI_COMMAND" = VERSION ] && echo '{{"supportedVersions":{versions}}}'"#);
        scratch.plugin("new", &says(r#"["0.4.0","1.0.0","1.1.0","9.0.0"]"#));
        scratch.plugin("old", &says(r#"["0.3.1","1.0.0","0.4.0"]"#));
        scratch.plugin("ancient", &says(r#"["0.0.1"]"#));
        scratch.plugin("mute", "exit 1");
        scratch.plugin("stuck", "exec sleep 60");
        let mut unseen = Vec::new();
        let found = older(&scratch.places(), &["absent".to_owned()], &mut unseen).await;
        let wanted = Version::V1_1_0;
        let old = |kind: &str, serves| OlderPlugin { kind: kind.into(), wanted, serves };
        assert_eq!(found, [old("ancient", None), old("old", Some(Version::V1_0_0))]);
        let what: Vec<_> = unseen.iter().map(|(what, _)| what.as_str()).collect();
        assert_eq!(what, ["versions of the plugin mute", "versions of the plugin stuck"], "{unseen:?}");
    }
}
