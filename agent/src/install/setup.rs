//! `fairlead install`.

use std::fs;
use std::path::{Path, PathBuf};

use super::{API_SERVER, PLUGIN, Step, kubeconfig};
use crate::bpf::{BpfError, ObjectFile, PinDir};
use crate::names;
use crate::parts::Parts;
use crate::wiring::Sysctls;
use fairlead_files::{FileError, Put};

/// Where things go.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where sockets and the journal of pods are.
    pub run_dir: PathBuf,
    /// Where maps and links are pinned; the file system is mounted at its parent.
    pub bpffs: PathBuf,
    /// The kernel's settings.
    pub proc_sys: PathBuf,
    /// The plugin, as it came with this binary.
    pub plugin: PathBuf,
    /// Where the container runtime executes plugins.
    pub cni_bin_dir: PathBuf,
    /// The kubeconfig of the node's kubelet.
    pub kubelet_kubeconfig: PathBuf,
    /// The API server's URL, where it is set.
    pub api_server: Option<String>,
    /// Which parts are to run.
    pub parts: Parts,
}

/// Puts everything in place, and says for each what was done. What is in place already is not touched.
#[must_use]
pub fn install(setup: &Setup) -> Vec<Step> {
    let Setup { run_dir, bpffs, proc_sys, plugin, cni_bin_dir, kubelet_kubeconfig, api_server, parts } = setup;
    let mut steps = vec![
        Step::new("bpf file system", mount(bpffs)),
        Step::new("run directory", make_run_dir(run_dir).map(|_| run_dir.display().to_string())),
    ];
    // What another network or proxy has set is theirs.
    let errors = if parts.serves() { Sysctls::new(proc_sys, run_dir).prepare().errors } else { Vec::new() };
    steps.push(match errors.is_empty() {
        true if !parts.serves() => Step::new("kernel settings", Ok::<_, String>("left as they are".to_owned())),
        true => Step::new("kernel settings", Ok::<_, String>("set for forwarding".to_owned())),
        false => {
            Step::new("kernel settings", Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
        }
    });
    let written = write_api_server(run_dir, kubelet_kubeconfig, api_server.as_deref());
    steps.push(Step::new("API server", written.map(|(text, _)| text)));
    let path = cni_bin_dir.join(PLUGIN);
    let copied = match parts.wires() {
        true => copy_plugin(plugin, cni_bin_dir).map(|put| format!("{} {}", path.display(), put.as_str())),
        false => Ok("not needed".to_owned()),
    };
    steps.push(Step::new("CNI plugin", copied));
    steps.push(Step::new("table memory", tables()));
    steps
}

/// Makes the directory, and the one in it that the node's DNS server sees too: its group is none that the agent could give.
/// Says whether that one is new.
pub(super) fn make_run_dir(run_dir: &Path) -> Result<bool, FileError> {
    fairlead_files::directory(run_dir)?;
    let names = run_dir.join(names::DIRECTORY);
    names::directory(&names).map_err(|source| FileError::new("make", &names, source))
}

fn mount(bpffs: &Path) -> Result<String, BpfError> {
    let parent = bpffs.parent().unwrap_or(bpffs);
    let text = if PinDir::mount(parent)? { "mounted at" } else { "already mounted at" };
    Ok(format!("{text} {}", parent.display()))
}

/// Writes the URL for the agent, and says which and whether that is news. A setting goes before what kubelet uses, and the agent
/// has it from there: what an earlier installation wrote must not outlive it.
pub(super) fn write_api_server(
    run_dir: &Path,
    kubeconfig: &Path,
    setting: Option<&str>,
) -> Result<(String, bool), String> {
    let path = run_dir.join(API_SERVER);
    let to_text = |error: FileError| error.to_string();
    if let Some(setting) = setting {
        let url = kubeconfig::url(setting).map_err(|reason| format!("the setting `apiServer`: {reason}"))?;
        let is_news = fairlead_files::remove(&path).map_err(to_text)?;
        return Ok((format!("{url}, from the settings"), is_news));
    }
    let url = kubeconfig::api_server(kubeconfig).map_err(|error| error.to_string())?;
    let put = fairlead_files::put(&path, format!("{url}\n").as_bytes(), 0o644).map_err(to_text)?;
    Ok((format!("{url}, from {}", kubeconfig.display()), put != Put::Same))
}

/// Installs the plugin. Runtimes may execute it at any moment, and the old one may be running.
pub(super) fn copy_plugin(plugin: &Path, directory: &Path) -> Result<Put, FileError> {
    let binary = fs::read(plugin).map_err(|source| FileError::new("read the bundled plugin", plugin, source))?;
    fairlead_files::directory(directory)?;
    fairlead_files::put(&directory.join(PLUGIN), &binary, 0o755)
}

fn tables() -> Result<String, BpfError> {
    let bytes = ObjectFile::find()?.definition()?.memory();
    Ok(format!("{} MiB of kernel memory, charged to the agent's memory limit", bytes.div_ceil(1 << 20)))
}
