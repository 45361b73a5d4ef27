//! `fairlead uninstall`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::chain::plugin_types;
use super::{PLUGIN, Step};
use crate::bpf::{PinDir, remove_filters};
use crate::wiring::{Netlink, PodLinks, Sysctls, WiringError};
use fairlead_files::FileError;

/// What is taken away, and from where.
#[derive(Debug, Clone)]
pub struct Removal {
    /// Where sockets and the journal of pods are.
    pub run_dir: PathBuf,
    /// Where maps and links are pinned.
    pub bpffs: PathBuf,
    /// The kernel's settings.
    pub proc_sys: PathBuf,
    /// Where the container runtime executes plugins.
    pub cni_bin_dir: PathBuf,
    /// The CNI configuration.
    pub conflist: PathBuf,
}

/// Takes everything away, and says for each what was done. One that fails keeps no other from being tried, and what is
/// gone already is no error.
///
/// The configuration goes first, so that the runtime gives us no more pods, and the run directory last: while the lock in it is
/// held, no keeper puts anything back. Connections of the node
/// that were made through services stay with their backends.
pub async fn uninstall(removal: &Removal) -> Vec<Step> {
    let Removal { run_dir, bpffs, proc_sys, cni_bin_dir, conflist } = removal;
    // Whoever watches it to append a plugin finds none to append to.
    let others = plugin_types(&fs::read(conflist).unwrap_or_default()).into_iter().filter(|kind| kind != PLUGIN);
    let others = others.collect::<Vec<_>>().join(", ");
    let removed =
        gone(conflist).map(|done| if others.is_empty() { done } else { format!("{done}, with {others} in it") });
    let mut steps = vec![Step::new("CNI configuration", removed)];
    match Netlink::open() {
        Ok(netlink) => steps.extend(unwire(netlink).await),
        Err(error) => steps.push(Step::new("pod interfaces and routes", Err(error))),
    }
    remove_filters();
    let removed = PinDir::remove(bpffs).map(|pins| {
        let others = PinDir::others_below(bpffs.parent().unwrap_or(bpffs)).map(|more| format!("; {more}"));
        format!("{}{}", count(pins, "pin"), others.unwrap_or_default())
    });
    steps.push(Step::new("programs and tables", removed));
    let (restored, errors) = Sysctls::new(proc_sys, run_dir).restore();
    let restored = count(restored, "setting").replace("removed", "restored");
    steps.push(Step::new("kernel settings", all_or(restored, &errors)));
    steps.push(Step::new("CNI plugin", gone(&cni_bin_dir.join(PLUGIN))));
    // What is left to restore has to stay known.
    if errors.is_empty() || errors.iter().all(|error| matches!(error, WiringError::Changed { .. })) {
        steps.push(Step::new("run directory", empty(run_dir)));
    }
    steps
}

async fn unwire(netlink: Netlink) -> Vec<Step> {
    let routes = netlink.node_routes().await.map_or(0, |routes| routes.len());
    let outcome = netlink.set_node_routes(&BTreeSet::new(), &[]).await;
    let mut steps = vec![Step::new(
        "routes to other nodes' pods and to Services",
        outcome.map_err(|e| e.to_string()).and_then(|kept| all_or(count(routes, "route"), &kept.errors)),
    )];
    let outcome = netlink.keep_neighbours(&BTreeSet::new()).await;
    steps.push(Step::new(
        "neighbours",
        outcome.map_err(|e| e.to_string()).and_then(|kept| all_or("no longer managed".to_owned(), &kept.errors)),
    ));
    let outcome = netlink.remove_overlay().await.map_err(|error| error.to_string());
    let said = |there| if there { "removed" } else { "not present" }.to_owned();
    steps.push(Step::new("VXLAN device", outcome.map(said)));
    let outcome = netlink.remove_svc().await.map_err(|error| error.to_string());
    steps.push(Step::new("device for Services", outcome.map(said)));
    let links = PodLinks::new(netlink);
    let outcome = match links.list().await {
        Ok(found) => {
            let mut errors = Vec::new();
            for link in &found {
                errors.extend(links.delete(&link.name).await.err());
            }
            all_or(count(found.len() - errors.len(), "link"), &errors)
        }
        Err(error) => Err(error.to_string()),
    };
    steps.push(Step::new("pod interfaces", outcome));
    steps
}

fn all_or(done: String, errors: &[WiringError]) -> Result<String, String> {
    if errors.is_empty() {
        return Ok(done);
    }
    Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural} removed")
}

fn gone(path: &Path) -> Result<String, FileError> {
    let text = if fairlead_files::remove(path)? { "removed" } else { "not present:" };
    Ok(format!("{text} {}", path.display()))
}

/// Empties a directory and removes it, unless something is mounted there, as in a container.
fn empty(directory: &Path) -> Result<String, FileError> {
    let shown = directory.display();
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FileError::new("remove", &path, source)
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(format!("not present: {shown}")),
        entries => entries.map_err(failed(directory))?,
    };
    for entry in entries {
        let path = entry.map_err(failed(directory))?.path();
        let removed =
            if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(failed(&path))?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            Ok(format!("emptied {shown}, which is a mount point"))
        }
        result => result.map(|()| format!("removed {shown}")).map_err(failed(directory)),
    }
}
