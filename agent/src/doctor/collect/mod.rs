//! Looking at the node.

mod api;
mod firewall;
mod kernel;
mod kubelet;
mod links;
mod managers;
mod plugins;
mod proxy;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::facts::{Agent, Cni, Disk, Facts, Keeper};
use crate::admin::{Connection, NetworkView, Request, StatusView};
use crate::bpf::{Kept, PinDir, cgroup2_root};
use crate::install::chain::{plugin_types, refusal};
use crate::install::{PLUGIN, conflist, lock_of};
use crate::parts::Parts;
use crate::wiring::Sysctls;

pub use kernel::kernel;
pub use proxy::proxy;

/// Where to look.
#[derive(Debug, Clone)]
pub struct Places {
    /// The node's root directory, as it is seen here.
    pub root: PathBuf,
    /// Where sockets and the journal of pods are.
    pub run_dir: PathBuf,
    /// Where maps and links are pinned.
    pub bpffs: PathBuf,
    /// The cgroup whose sockets are served.
    pub cgroup_root: Option<PathBuf>,
    /// The kernel's settings.
    pub proc_sys: PathBuf,
    /// Where the container runtime executes plugins.
    pub cni_bin_dir: PathBuf,
    /// Where it looks for configurations.
    pub cni_conf_dir: PathBuf,
    /// The name of ours.
    pub cni_conf_name: String,
    /// The kubeconfig of the node's kubelet.
    pub kubelet_kubeconfig: PathBuf,
    /// The API server's URL, where it is set.
    pub api_server: Option<String>,
}

impl Places {
    /// The agent's own container sees not everything of the node.
    fn cni_bin_is_hidden(&self) -> bool {
        self.root != Path::new("/") && !self.cni_bin_dir.exists()
    }
}

/// Looks at everything. It takes a few seconds when the API server does not answer.
pub async fn collect(places: &Places) -> Facts {
    let mut facts = Facts { kernel: kernel(&places.proc_sys), agent: agent(&places.run_dir), ..Facts::default() };
    let parent = places.bpffs.parent().unwrap_or(&places.bpffs);
    facts.bpffs = Some((parent.to_owned(), PinDir::is_bpffs(parent)));
    facts.keeper = Kept::of(&lock_of(&places.run_dir)).map_or(Keeper::Absent, |kept| match kept.silent_for() {
        Some(silent) => Keeper::Silent(silent),
        None => Keeper::Runs(kept.failing().to_owned()),
    });
    facts.cgroup = cgroup2_root(places.cgroup_root.as_deref()).err().map(|error| error.to_string());

    let rules = firewall::rules(&mut facts.unseen);
    facts.proxy = proxy::proxy_with(&rules, &places.root.join("proc"));
    if facts.proxy.processes.is_empty() && in_container() && places.root == Path::new("/") {
        unseen(&mut facts, "processes of the node, kube-proxy among them", "this is a container");
    }
    let ranges = facts.agent.as_ref().map(|agent| agent.ranges.clone()).unwrap_or_default();
    facts.forward_drop = firewall::stopping(&rules, &ranges, &mut facts.unseen);

    let hidden = places.cni_bin_is_hidden();
    if hidden {
        let what = format!("{PLUGIN} in {}", places.cni_bin_dir.display());
        unseen(&mut facts, &what, "that directory is not visible in this container");
    }
    facts.cni = cni(places, hidden);
    if !hidden {
        facts.cni.older = plugins::older(places, &facts.cni.missing, &mut facts.unseen).await;
    }
    links::links(&places.proc_sys, &mut facts).await;
    let sysctls = Sysctls::new(&places.proc_sys, &places.run_dir);
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        if let Some(value) = sysctls.read(key).filter(|value| value == "0") {
            facts.settings.push(format!("{} = {value}", key.replace('/', ".")));
        }
    }
    facts.no_ipv6 = sysctls.read("net/ipv6/conf/all/disable_ipv6").as_deref() == Some("1");
    managers::managers(&places.root, &mut facts);
    facts.node_local_dns = kubelet::node_local_dns(&places.root, &mut facts.unseen);
    facts.api_server = api::api_server(places, &mut facts.unseen).await;
    let dirs = [Some(&places.run_dir), (!hidden).then_some(&places.cni_bin_dir), Some(&places.cni_conf_dir)];
    facts.disks = dirs.into_iter().flatten().filter_map(|dir| disk(dir)).collect();
    if facts.agent.is_none() {
        let what = "the Node object (addresses, pod ranges) and the settings";
        unseen(&mut facts, what, "no agent answers: run this again once one does");
    }
    facts
}

fn unseen(facts: &mut Facts, what: &str, why: &str) {
    facts.unseen.push((what.to_owned(), why.to_owned()));
}

fn in_container() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn agent(run_dir: &Path) -> Option<Agent> {
    let mut connection = Connection::ask(&run_dir.join("agent.sock"), &Request::Status).ok()?;
    let status: StatusView = connection.answer().ok()?;
    let StatusView { parts, health, reason, warnings, claims, pod_ranges, node_local_dns, network, .. } = status;
    let warnings = warnings.into_iter().map(|warning| (warning.topic, warning.text)).collect();
    let claims = claims.into_iter().map(|claim| (claim.object, claim.reason)).collect();
    let NetworkView { uplinks, addresses, ranges, .. } = network;
    let ranges = ranges.iter().filter_map(|range| range.range.parse().ok()).collect();
    let parts = Parts::named(&parts);
    Some(Agent { parts, health, reason, warnings, claims, pod_ranges, node_local_dns, uplinks, addresses, ranges })
}

fn cni(places: &Places, hidden: bool) -> Cni {
    let plugin = places.cni_bin_dir.join(PLUGIN);
    let executable =
        |path: &Path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let noexec = statvfs(&places.cni_bin_dir).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC));
    let (directory, own) = (&places.cni_conf_dir, &places.cni_conf_name);
    let files = conflist::configurations(directory).unwrap_or_default();
    let mut others = fs::read(directory.join(own)).map(|content| plugin_types(&content)).unwrap_or_default();
    let refused = others.iter().filter(|kind| refusal(kind).is_some()).cloned().collect();
    others.retain(|kind| kind != PLUGIN && !hidden && !executable(&places.cni_bin_dir.join(kind)));
    Cni {
        directory: directory.clone(),
        own: own.clone(),
        lead_here: conflist::leading_here(directory, &files, own),
        files,
        missing: others,
        refused,
        older: Vec::new(),
        plugin_ok: hidden || executable(&plugin) && !noexec,
        plugin,
    }
}

/// The nearest directory that exists counts: the rest is made when it is needed.
fn disk(path: &Path) -> Option<Disk> {
    let existing = path.ancestors().find(|path| fs::metadata(path).is_ok())?;
    let fs = statvfs(existing).ok()?;
    Some(Disk {
        path: path.to_owned(),
        bytes: fs.blocks_available() * fs.fragment_size(),
        files: (fs.files() > 0).then(|| fs.files_available()),
        read_only: fs.flags().contains(FsFlags::ST_RDONLY),
    })
}
