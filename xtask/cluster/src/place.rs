//! A cluster's directory: all that is known of it. Whoever has the directory can look after the cluster.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cgroups::Hierarchy;
use crate::process::Process;
use crate::service::Board;

/// What a cluster shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name: several may be up at once.
    pub name: String,
    /// How many nodes.
    pub nodes: u8,
    /// How many subnets the nodes are in, in turns; the fabric routes between them, but not to pods.
    pub subnets: u8,
    /// The MTU between nodes.
    pub mtu: u32,
    /// Whether nodes have a file system for eBPF objects mounted from the start.
    pub bpffs: bool,
    /// Its Kubernetes by the minor version (`1.36`); nothing for the one that everything runs on.
    #[serde(default)]
    pub kubernetes: Option<String>,
    /// Whether kubeadm makes the control plane, in pods of the first node; else it is in the fabric.
    #[serde(default)]
    pub kubeadm: bool,
}

impl Spec {
    /// Two nodes in one subnet, with the Kubernetes that everything runs on.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), nodes: 2, subnets: 1, mtu: 1500, bpffs: true, kubernetes: None, kubeadm: false }
    }

    /// Names appear in host names, cgroups and paths.
    pub(crate) fn validate(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.chars().all(plain) {
            bail!("{:?} is not a valid cluster name: use up to 32 of a-z, 0-9 and -", self.name);
        }
        if !(1..=200).contains(&self.nodes) || !(1..=100).contains(&self.subnets) {
            bail!("a cluster has 1 to 200 nodes in 1 to 100 subnets");
        }
        if self.kubeadm && self.kubernetes.is_some() {
            bail!("kubeadm is built at the version that everything runs on alone");
        }
        Ok(())
    }

    /// The names of the nodes.
    pub fn node_names(&self) -> impl Iterator<Item = (u8, String)> + use<> {
        (1..=self.nodes).map(|number| (number, format!("node-{number}")))
    }
}

/// What is written down of a cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) spec: Spec,
    pub(crate) hierarchies: Vec<Hierarchy>,
    /// The folder in which nodes find the programs that are not of the machine.
    pub(crate) programs: PathBuf,
}

/// The name of the place that is the network between nodes, and has the control plane.
pub const FABRIC: &str = "fabric";

/// A cluster's directory.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) path: PathBuf,
}

impl Home {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(crate) fn record(&self) -> Result<Record> {
        let file = self.path.join("cluster.json");
        let text = fs::read(&file).with_context(|| format!("there is no cluster in {}", self.path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} can't be read", file.display()))
    }

    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        fs::create_dir_all(&self.path)?;
        fs::write(self.path.join("cluster.json"), serde_json::to_vec_pretty(record)?)?;
        Ok(())
    }

    /// The directory of the fabric or of a node.
    pub(crate) fn place(&self, name: &str) -> Place {
        Place { path: self.path.join(name) }
    }

    /// Every place that has been begun.
    pub(crate) fn places(&self) -> Vec<Place> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        entries.filter(|path| path.join("init.json").exists()).map(|path| Place { path }).collect()
    }

    /// The name of a node's cgroup, which tells clusters apart.
    pub(crate) fn cgroup(record: &Record, node: &str) -> String {
        format!("fairlead-cluster-{}-{node}", record.spec.name)
    }
}

/// The directory of one set of namespaces.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
}

impl Place {
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(crate) fn board(&self) -> Board {
        Board::new(&self.path)
    }

    /// Its first process, if it was started.
    pub(crate) fn init(&self) -> Option<Process> {
        serde_json::from_slice(&fs::read(self.path.join("init.json")).ok()?).ok()
    }

    pub(crate) fn set_init(&self, process: Process) -> Result<()> {
        fairlead_files::put(&self.path.join("init.json"), &serde_json::to_vec(&process)?, 0o644)?;
        Ok(())
    }

    /// Its first process, which must run.
    pub(crate) fn alive(&self) -> Result<Process> {
        match self.init().filter(|init| init.alive()) {
            Some(init) => Ok(init),
            None => bail!("{} does not run: {}", self.name(), self.last_words()),
        }
    }

    /// The file that its first process makes when it is ready.
    pub(crate) fn ready(&self) -> PathBuf {
        self.path.join("ready")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The end of what its first process said.
    pub(crate) fn last_words(&self) -> String {
        let log = self.logs().join("init.log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        match text.rfind("error: ") {
            Some(begin) => text[begin..].trim_end().to_owned(),
            None => format!("{} says no error", log.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_path_is_refused() {
        assert!(Spec::new("dev").validate().is_ok());
        for name in ["", "../x", "A", "a/b", "123456789012345678901234567890123"] {
            assert!(Spec::new(name).validate().is_err(), "{name}");
        }
        assert!(Spec { nodes: 0, ..Spec::new("dev") }.validate().is_err());
        let kubernetes = Some("1.36".to_owned());
        assert!(Spec { kubernetes, kubeadm: true, ..Spec::new("dev") }.validate().is_err());
    }
}
