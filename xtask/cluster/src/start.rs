//! From nothing to a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::build::Builder;
use crate::cluster::{Cluster, wait};
use crate::control_plane::{self, CONTROLLER_MANAGER, SCHEDULER};
use crate::inner::Helper;
use crate::kubeconfig::kubeconfig;
use crate::parts::{CLUSTER, Part};
use crate::pki::{Authority, Files};
use crate::place::{FABRIC, Home, Record, Spec};
use crate::process::Process;
use crate::say::Watch;
use crate::system::which;
use crate::{addresses, cgroups, node_config, pause, teardown};

/// The machine that clusters are made on.
#[derive(Debug, Clone)]
pub struct Host {
    /// Builds and keeps programs.
    pub builder: Builder,
    /// The folder with a folder for each cluster.
    pub clusters: PathBuf,
    /// How this program calls itself.
    pub helper: Helper,
}

impl Host {
    /// The directory of a cluster.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.clusters.join(name)
    }

    /// A cluster that is up.
    pub fn open(&self, name: &str) -> Result<Cluster> {
        Cluster::open(&self.directory(name), self.helper.clone())
            .with_context(|| format!("cluster {name} is not up: `cargo xtask cluster up` starts it"))
    }

    /// Ends a cluster, or what is left of one; nothing to end is fine.
    pub fn down(&self, name: &str) -> Result<()> {
        let directory = self.directory(name);
        if directory.exists() { teardown::down(&Home::new(&directory)) } else { Ok(()) }
    }

    /// Makes a cluster without a network for pods: nodes stay NotReady until somebody brings one. When it fails nothing
    /// stays but a copy of the logs. It stays up when this process ends.
    pub fn up(&self, spec: &Spec) -> Result<Cluster> {
        self.start(spec, false)
    }

    /// The same, for a cluster that goes down when the value is dropped or this process ends, however that comes.
    pub fn up_guarded(&self, spec: &Spec) -> Result<Cluster> {
        self.start(spec, true)
    }

    /// What builds the programs of a cluster, at its version of Kubernetes.
    pub(crate) fn builder_of(&self, cluster: &Cluster) -> Builder {
        self.builder.of(cluster.spec().kubernetes.as_deref())
    }

    fn start(&self, spec: &Spec, guarded: bool) -> Result<Cluster> {
        spec.validate()?;
        for program in ["ip", "nsenter", "runc"] {
            which(program)?;
        }
        self.builder.of(spec.kubernetes.as_deref()).build(CLUSTER)?;
        let pause = pause::image(&self.builder.cache)?;
        let home = Home::new(&self.directory(&spec.name));
        if home.places().iter().any(|place| place.init().is_some_and(Process::alive)) {
            bail!("cluster {} is up already: `cargo xtask cluster down` ends it", spec.name);
        }
        // What was left by one whose machine started again.
        self.down(&spec.name)?;
        self.make(spec, home.clone(), &pause, guarded).inspect_err(|_| {
            let kept = home.path.with_extension("failed");
            // The reason is on its way to the user already.
            let _ = keep_logs(&home, &kept);
            let _ = teardown::down(&home);
        })
    }

    fn make(&self, spec: &Spec, home: Home, pause: &Path, guarded: bool) -> Result<Cluster> {
        let watch = Watch::start();
        let begin = if spec.kubeadm { Self::begin_kubeadm } else { Self::begin };
        let programs = home.path.join("bin");
        let record = Record { spec: spec.clone(), hierarchies: cgroups::find()?, programs };
        home.write(&record)?;
        let mut cluster = Cluster::new(home, record, self.helper.clone());
        if guarded {
            cluster = cluster.guarded()?;
        }
        self.provide(&cluster, CLUSTER)?;
        begin(self, &cluster, pause, &watch)?;
        cluster.run_service(FABRIC, &self.helper.service("load-balancer", "balance", cluster.directory()))?;
        cluster.wait_for_nodes()?;
        wait(
            Duration::from_secs(60),
            || "namespace default gets no service account".to_owned(),
            || Ok(cluster.kubectl(&["get", "serviceaccount", "default"]).ok()),
        )?;
        watch.say("nodes registered");
        Ok(cluster)
    }

    /// The control plane in the fabric, and kubelets that have their identities from us.
    fn begin(&self, cluster: &Cluster, pause: &Path, watch: &Watch) -> Result<()> {
        identities(cluster)?;
        let program = |name: &str| cluster.program(name).display().to_string();
        for service in control_plane::services(cluster.directory(), &program) {
            cluster.run_service(FABRIC, &service)?;
        }
        cluster.launch(FABRIC)?;
        watch.say("fabric, and the control plane begins");
        begin_nodes(cluster, pause)?;
        watch.say("nodes with containerd");
        cluster.wait_for_api(Duration::from_secs(120))?;
        watch.say("API server ready");
        let spec = cluster.spec();
        for (number, node) in spec.node_names() {
            let [_, kubelet] = node_config::services(number, &node, addresses::node(number, spec.subnets));
            cluster.run_service(&node, &kubelet)?;
        }
        Ok(())
    }

    /// Puts built parts into the folder that nodes see.
    pub fn provide(&self, cluster: &Cluster, parts: &[Part]) -> Result<()> {
        let folder = &cluster.record.programs;
        fs::create_dir_all(folder)?;
        let builder = self.builder_of(cluster);
        for part in parts {
            let (source, target) = (builder.path(part)?, folder.join(part.name));
            if !target.exists() && fs::hard_link(&source, &target).is_err() {
                fs::copy(&source, &target).with_context(|| format!("no {}", source.display()))?;
            }
        }
        Ok(())
    }
}

/// Certificates, and who calls the API server with which.
fn identities(cluster: &Cluster) -> Result<()> {
    let authority = Authority::new()?;
    authority.write(&Files::new(cluster.directory()))?;
    let write = |file: &Path, user: &str, group: &str| -> Result<()> {
        fs::create_dir_all(file.parent().context("a file is in a folder")?)?;
        fs::write(file, kubeconfig(&authority, &authority.client(user, group)?, user))?;
        Ok(())
    };
    let home = cluster.directory();
    write(&home.join("admin.conf"), "kubernetes-admin", "system:masters")?;
    write(&home.join("controller-manager.conf"), CONTROLLER_MANAGER, CONTROLLER_MANAGER)?;
    write(&home.join("scheduler.conf"), SCHEDULER, SCHEDULER)?;
    write(&home.join("kube-proxy.conf"), "system:kube-proxy", "system:kube-proxy")?;
    for (_, node) in cluster.spec().node_names() {
        let kubernetes = cluster.place(&node).path.join("etc/kubernetes");
        write(&kubernetes.join("kubelet.conf"), &format!("system:node:{node}"), "system:nodes")?;
        fs::create_dir_all(kubernetes.join("pki"))?;
        fs::write(kubernetes.join("pki/ca.crt"), &authority.certificate)?;
    }
    Ok(())
}

/// Every node with its container runtime.
pub(crate) fn begin_nodes(cluster: &Cluster, pause: &Path) -> Result<()> {
    thread::scope(|scope| {
        let starts: Vec<_> = cluster
            .spec()
            .node_names()
            .map(|(number, node)| scope.spawn(move || begin_node(cluster, number, &node, pause)))
            .collect();
        starts.into_iter().try_for_each(|start| start.join().expect("it returns its errors"))
    })
}

/// A node with its container runtime; kubelet comes when there is somebody to register with.
fn begin_node(cluster: &Cluster, number: u8, node: &str, pause: &Path) -> Result<()> {
    let place = cluster.place(node);
    let plugins = place.path.join("opt/cni/bin");
    fs::create_dir_all(&plugins)?;
    for plugin in ["loopback", "portmap", "tuning"] {
        fs::copy(cluster.program(plugin), plugins.join(plugin))?;
    }
    fs::write(place.path.join("containerd.toml"), node_config::containerd(&which("runc")?))?;
    fs::write(place.path.join("kubelet.yaml"), node_config::kubelet())?;
    let [containerd, _] = node_config::services(number, node, addresses::node(number, cluster.spec().subnets));
    cluster.run_service(node, &containerd)?;
    cluster.launch(node)?;
    cluster.load_into(node, pause)
}

/// What its programs said, for a cluster that did not come up.
fn keep_logs(home: &Home, target: &Path) -> Result<()> {
    if target.exists() {
        fs::remove_dir_all(target)?;
    }
    for place in home.places() {
        let to = target.join(place.name());
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(place.logs())? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    eprintln!("=> what its programs said is in {}", target.display());
    Ok(())
}
