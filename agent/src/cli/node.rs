//! Commands that change the node or look at it, without an agent.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use fairlead_files::Lock;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::args::{Args, Command};
use super::print::{self, Table};
use super::show::{List, Output, show};
use super::{CliError, runtime};
use crate::admin::{self, Connection, Request};
use crate::daemon;
use crate::doctor::migration;
use crate::doctor::{self, Finding, Severity, Without};
use crate::install::conflist::{CONF_DIR, CONF_NAME};
use crate::install::{self, HOST, PLUGIN, Removal, Setup, Step};
use crate::settings::{GROUPS, Settings};
use crate::wiring::PROC_SYS;

/// Where the container runtime executes plugins: containerd, and CRI-O.
const CNI_BIN_DIR: &str = "/opt/cni/bin";

/// What kubeadm, kind and minikube give to kubelet.
const KUBELET_KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";

/// Where things are on the node.
#[derive(Debug, ClapArgs)]
pub(super) struct Places {
    /// Directory for sockets and the journal of pods
    #[arg(long, default_value = "/run/fairlead", value_name = "DIR")]
    run_dir: PathBuf,
    /// Directory where maps and programs are pinned
    #[arg(long, default_value = "/sys/fs/bpf/fairlead", value_name = "DIR")]
    bpffs: PathBuf,
    /// The node's root directory as this process sees it; other paths default to paths below it
    /// [default: /host if /host/etc exists, else /]
    #[arg(long, value_name = "DIR")]
    host_root: Option<PathBuf>,
    /// Directory of CNI plugins [default: HOST_ROOT/opt/cni/bin]
    #[arg(long, value_name = "DIR")]
    cni_bin_dir: Option<PathBuf>,
    /// Directory of sysctls [default: HOST_ROOT/proc/sys, else /proc/sys]
    #[arg(long, value_name = "DIR")]
    proc_sys: Option<PathBuf>,
}

impl Places {
    fn root(&self) -> PathBuf {
        let in_container = || if Path::new(HOST).join("etc").exists() { HOST } else { "/" }.into();
        self.host_root.clone().unwrap_or_else(in_container)
    }

    fn on_host(&self, named: Option<&PathBuf>, path: &str) -> PathBuf {
        named.cloned().unwrap_or_else(|| self.root().join(path.trim_start_matches('/')))
    }

    /// Of what containers have at the same path as the node, unless they have all of the node below one.
    fn here_or_on_host(&self, path: &Path) -> PathBuf {
        let on_host = self.root().join(path.strip_prefix("/").unwrap_or(path));
        if !path.exists() && on_host.exists() { on_host } else { path.to_owned() }
    }

    fn cni_bin_dir(&self) -> PathBuf {
        self.on_host(self.cni_bin_dir.as_ref(), CNI_BIN_DIR)
    }

    fn proc_sys(&self) -> PathBuf {
        let path = self.on_host(self.proc_sys.as_ref(), PROC_SYS);
        if self.proc_sys.is_some() || path.join("net").exists() { path } else { PathBuf::from(PROC_SYS) }
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct InstallArgs {
    #[command(flatten)]
    places: Places,
    /// Do not end: put back what somebody unmounts or removes, until SIGTERM
    #[arg(long)]
    keep: bool,
    /// The plugin to install [default: fairlead-cni next to this program]
    #[arg(long, value_name = "FILE")]
    cni_plugin: Option<PathBuf>,
    /// Kubelet's kubeconfig, from which the API server's address is read [default:
    /// HOST_ROOT/etc/kubernetes/kubelet.conf]
    #[arg(long, value_name = "FILE")]
    kubelet_kubeconfig: Option<PathBuf>,
    /// The API server's URL, as seen from this node [default: from the agent's settings, else from kubelet]
    #[arg(long, value_name = "URL")]
    api_server: Option<String>,
    /// The agent's settings file, to validate and to read the API server's URL from
    // By another name, since the settings in it are not this command's own.
    #[arg(id = "agent_config", long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct UninstallArgs {
    #[command(flatten)]
    places: Places,
    /// Say what would be removed and restored, and change nothing. Works beside an agent
    #[arg(long)]
    dry_run: bool,
    /// Directory of CNI configurations [default: HOST_ROOT/etc/cni/net.d]
    #[arg(long, value_name = "DIR")]
    cni_conf_dir: Option<PathBuf>,
    /// File name of our CNI configuration
    #[arg(long, default_value = CONF_NAME, value_name = "NAME")]
    cni_conf_name: String,
}

#[derive(Debug, ClapArgs)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    places: Places,
    /// Root of cgroup v2, or a directory that contains its mount [default: HOST_ROOT/sys/fs/cgroup]
    #[arg(long, value_name = "DIR")]
    cgroup_root: Option<PathBuf>,
    /// Directory of CNI configurations [default: HOST_ROOT/etc/cni/net.d]
    #[arg(long, value_name = "DIR")]
    cni_conf_dir: Option<PathBuf>,
    /// File name of our CNI configuration
    #[arg(long, default_value = CONF_NAME, value_name = "NAME")]
    cni_conf_name: String,
    /// The kubeconfig of the node's kubelet [default: HOST_ROOT/etc/kubernetes/kubelet.conf]
    #[arg(long, value_name = "FILE")]
    kubelet_kubeconfig: Option<PathBuf>,
    /// The API server's URL, as seen from this node [default: what the agent uses]
    #[arg(long, value_name = "URL")]
    api_server: Option<String>,
    /// Say what has to be so before Fairlead takes over from another network on this node
    #[arg(long)]
    before_migration: bool,
    /// CoreDNS' Corefile, to be checked by fairlead-dns
    #[arg(long, value_name = "FILE", requires = "before_migration")]
    corefile: Option<PathBuf>,
    /// The cluster's objects: kubectl get nodes,services,networkpolicies --all-namespaces -o yaml
    #[arg(long, value_name = "FILE", requires = "before_migration")]
    cluster: Option<PathBuf>,
}

/// What `doctor` prints for programs.
#[derive(Debug, Serialize)]
struct Report {
    findings: Vec<Finding>,
    /// What the node lacks, and what holds there.
    without: Vec<Without>,
    unseen: Vec<Unseen>,
}

/// What could not be looked at, and why.
#[derive(Debug, Serialize)]
struct Unseen {
    what: String,
    reason: String,
}

pub(super) fn doctor(args: &DoctorArgs, output: Output) -> Result<(), CliError> {
    let DoctorArgs {
        places,
        cgroup_root,
        cni_conf_dir,
        cni_conf_name,
        kubelet_kubeconfig,
        api_server,
        before_migration,
        corefile,
        cluster,
    } = args;
    let places = doctor::Places {
        root: places.root(),
        run_dir: places.here_or_on_host(&places.run_dir),
        bpffs: places.here_or_on_host(&places.bpffs),
        cgroup_root: Some(places.on_host(cgroup_root.as_ref(), "/sys/fs/cgroup")),
        proc_sys: places.proc_sys(),
        cni_bin_dir: places.cni_bin_dir(),
        cni_conf_dir: places.on_host(cni_conf_dir.as_ref(), CONF_DIR),
        cni_conf_name: cni_conf_name.clone(),
        kubelet_kubeconfig: places.on_host(kubelet_kubeconfig.as_ref(), KUBELET_KUBECONFIG),
        api_server: api_server.clone(),
    };
    let mut facts = runtime()?.block_on(doctor::collect(&places));
    let findings = if *before_migration {
        let other = migration::collect(corefile.as_deref(), cluster.as_deref(), &mut facts.unseen);
        migration::before_migration(&facts, &other)
    } else {
        doctor::findings(&facts)
    };
    let unseen = facts.unseen.iter().cloned().map(|(what, reason)| Unseen { what, reason });
    let report = Report { findings, without: doctor::without(&facts), unseen: unseen.collect() };
    show(output, "Findings", &report, || print::report(&report.findings, &report.without, &facts.unseen))?;
    let stops = report.findings.iter().any(|finding| finding.severity == Severity::Blocks);
    if stops { Err(CliError::No) } else { Ok(()) }
}

pub(super) fn install(args: &InstallArgs, output: Output) -> Result<(), CliError> {
    let result = try_install(args, output);
    if let Err(error) = &result
        && !args.keep
    {
        // No agent comes after this one: whoever asks `fairlead status` for it learns why. Beside a keeper one runs.
        admin::leave(&args.places.run_dir, &error.to_string());
    }
    result
}

fn try_install(args: &InstallArgs, output: Output) -> Result<(), CliError> {
    let InstallArgs { places, keep, cni_plugin, kubelet_kubeconfig, api_server, config } = args;
    let settings = config.as_deref().map(agent_settings).transpose()?;
    settings.as_ref().map_or(Ok(()), daemon::check)?;
    let parts = settings.as_ref().map(|settings| settings.parts).unwrap_or_default();
    let set = || settings.and_then(|settings| settings.api_server).map(|url| url.to_string());
    let own = || std::env::current_exe().map(|path| path.with_file_name(PLUGIN));
    let plugin =
        cni_plugin.clone().map_or_else(own, Ok).map_err(|error| CliError::Io("can't find this executable", error))?;
    let setup = Setup {
        run_dir: places.run_dir.clone(),
        bpffs: places.bpffs.clone(),
        proc_sys: places.proc_sys(),
        plugin,
        cni_bin_dir: places.cni_bin_dir(),
        kubelet_kubeconfig: places.on_host(kubelet_kubeconfig.as_ref(), KUBELET_KUBECONFIG),
        api_server: api_server.clone().or_else(set),
        parts,
    };
    if *keep {
        return install::keep(&setup).map_err(|error| CliError::Io("can't keep what is installed", error));
    }
    report(&install::install(&setup), output)
}

/// What the agent will take from this file.
fn agent_settings(config: &Path) -> Result<Settings, CliError> {
    let words = ["fairlead", "agent", "--node=", "--config"].map(OsString::from);
    let words = words.into_iter().chain([config.as_os_str().to_owned()]);
    let args: Args = fairlead_settings::parse_from(words, &GROUPS)?;
    match args.command {
        Command::Agent(args) => Ok(args.settings),
        other => Err(CliError::Usage(format!("{other:?} has no settings"))),
    }
}

/// Does nothing until it is told to end: the pod of `manifests/remove` that has cleaned its node stays, and by that says so.
pub(super) fn stay() -> Result<(), CliError> {
    runtime()?.block_on(async {
        let mut end = signal(SignalKind::terminate()).map_err(|error| CliError::Io("can't wait for signals", error))?;
        end.recv().await;
        Ok(())
    })
}

pub(super) fn uninstall(args: &UninstallArgs, output: Output) -> Result<(), CliError> {
    let UninstallArgs { places, dry_run, cni_conf_dir, cni_conf_name } = args;
    let run_dir = places.here_or_on_host(&places.run_dir);
    if !dry_run {
        refuse_beside_an_agent(&run_dir)?;
    }
    // Until the end: a keeper that starts meanwhile would put back what is removed.
    let _no_keeper = if *dry_run { None } else { take_keepers_place(&run_dir)? };
    let removal = Removal {
        run_dir,
        bpffs: places.here_or_on_host(&places.bpffs),
        proc_sys: places.proc_sys(),
        cni_bin_dir: places.cni_bin_dir(),
        conflist: places.on_host(cni_conf_dir.as_ref(), CONF_DIR).join(cni_conf_name),
    };
    let steps = runtime()?.block_on(async {
        if *dry_run { install::survey(&removal).await } else { install::uninstall(&removal).await }
    });
    report(&steps, output)
}

/// How an agent, and the keeper in its pod, leave a node: the DaemonSet runs on no node with this label.
const STOP_IT: &str = "stop it first (`kubectl label node NODE fairlead.io/off=yes`, or, for all nodes, `kubectl -n kube-system \
                       delete daemonset fairlead`); when its pod is gone, uninstall";

fn refuse_beside_an_agent(run_dir: &Path) -> Result<(), CliError> {
    match Connection::ask(&run_dir.join("agent.sock"), &Request::Status) {
        Ok(_) => Err(CliError::Usage(format!("an agent is running on this node: {STOP_IT}"))),
        Err(_) => Ok(()),
    }
}

/// Takes the lock of keepers: one that runs would put back what is removed, and one that starts waits. `None`: no keeper has been
/// here, or the lock can't be made, which keeps nobody from removing things.
fn take_keepers_place(run_dir: &Path) -> Result<Option<Lock>, CliError> {
    let lock = install::lock_of(run_dir);
    match Lock::take(&lock) {
        Ok(Some(lock)) => return Ok(Some(lock)),
        Err(_) if !Lock::is_held(&lock) => return Ok(None),
        Ok(None) | Err(_) => {}
    }
    Err(CliError::Usage(format!("`fairlead install --keep` is running on this node: {STOP_IT}")))
}

/// Shows what was done; what failed makes the command fail.
fn report(steps: &[Step], output: Output) -> Result<(), CliError> {
    show(output, "Steps", &List { items: steps }, || {
        let mut table = Table::new(["what", "outcome"]);
        for Step { what, done, failed } in steps {
            let failed = failed.as_ref().map(|text| format!("FAILED: {text}"));
            table.row([what.clone(), done.clone().or(failed).unwrap_or_default()]);
        }
        table.to_string()
    })?;
    let failed = steps.iter().filter_map(|step| Some(format!("{}: {}", step.what, step.failed.as_ref()?)));
    let failed: Vec<_> = failed.collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(CliError::Usage(format!("{} of {} steps failed: {}", failed.len(), steps.len(), failed.join("; "))))
}
