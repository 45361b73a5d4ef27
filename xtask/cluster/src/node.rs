//! What makes a set of namespaces a machine: its own mounts. The root file system is the machine's, and what a node writes
//! to it goes to the node's directory: /var, /etc, /opt and the CNI and kubelet's files stay over a restart; /run, /tmp and
//! what is in the kernel (bpffs) do not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::addresses::{node, router, subnet_of};
use crate::cgroups;
use crate::node_config::{OWN, PROGRAMS, hosts};
use crate::place::{Place, Record};
use crate::system::{bind, mount_kernel, private_mounts};

/// Settings of the whole machine that kubelet would change, and the values it wants to find: it is shown these.
const KUBELETS_WISHES: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Mounts everything; this process is the first of the node's namespaces.
pub(crate) fn make(record: &Record, place: &Place, number: u8) -> Result<()> {
    private_mounts()?;
    mount_kernel("proc", "/proc")?;
    fs::write("/proc/sys/kernel/hostname", place.name())?;

    run(record, place).context("/run")?;
    // sysfs shows the network of whoever mounts it.
    mount_kernel("sysfs", "/sys")?;
    cgroups::mount_all(&record.hierarchies)?;
    if record.spec.bpffs {
        mount_kernel("bpf", "/sys/fs/bpf")?;
    }
    var(&place.path.join("var")).context("/var")?;
    etc(record, place, number).context("/etc")?;
    bind(Path::new(OWN).join("opt"), "/opt")?;
    mount_kernel("tmpfs", "/tmp")?;
    mount_kernel("tmpfs", "/dev/shm")?;
    show_kubelet_its_wishes()?;
    // What a pod mounts with Bidirectional propagation is to be seen by the node and by other pods.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)?;
    Ok(())
}

/// A fresh /run, with what the node needs of the machine bound into it while that can still be seen.
fn run(record: &Record, place: &Place) -> Result<()> {
    let stage = place.path.join("run");
    fs::create_dir_all(&stage)?;
    mount(Some("tmpfs"), &stage, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    for (source, target) in [(record.programs.as_path(), PROGRAMS), (place.path.as_path(), OWN)] {
        let target = stage.join(target.trim_start_matches("/run/"));
        fs::create_dir_all(&target)?;
        bind(source, target)?;
    }
    fs::create_dir_all(stage.join("lock"))?;
    mount(Some(&stage), "/run", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("can't move it to its place")
}

fn var(directory: &Path) -> Result<()> {
    for name in ["cache", "lib/cni", "lib/containerd", "lib/kubelet", "log", "spool", "tmp"] {
        fs::create_dir_all(directory.join(name))?;
    }
    if !directory.join("run").is_symlink() {
        symlink("/run", directory.join("run"))?;
    }
    bind(Path::new(OWN).join("var"), "/var")
}

/// The machine's /etc, with the node's own files and without those of a cluster that the machine may be in.
fn etc(record: &Record, place: &Place, number: u8) -> Result<()> {
    let layer = Path::new(OWN).join("etc");
    for name in ["upper", "work", "cni/net.d", "kubernetes"] {
        fs::create_dir_all(layer.join(name))?;
    }
    fs::create_dir_all(Path::new(OWN).join("opt/cni/bin"))?;
    let options = format!("lowerdir=/etc,upperdir={0}/upper,workdir={0}/work", layer.display());
    mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .context("can't lay a directory over it: the kernel needs overlayfs")?;
    for name in ["cni", "kubernetes"] {
        let target = Path::new("/etc").join(name);
        fs::create_dir_all(&target)?;
        bind(layer.join(name), target)?;
    }
    let spec = &record.spec;
    let resolver = router(subnet_of(number, spec.subnets)).0;
    for (name, text) in [
        ("hostname", format!("{}\n", place.name())),
        ("hosts", hosts(&place.name(), node(number, spec.subnets))),
        ("resolv.conf", format!("nameserver {resolver}\n")),
        ("machine-id", format!("{:032x}\n", 0xfa11_ead0_u64 + u64::from(number))),
    ] {
        let file = Path::new("/etc").join(name);
        // Often a link to somewhere below /run.
        if file.is_symlink() {
            fs::remove_file(&file)?;
        }
        fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(())
}

fn show_kubelet_its_wishes() -> Result<()> {
    let directory = Path::new("/run/cluster/sysctl");
    fs::create_dir_all(directory)?;
    for (name, value) in KUBELETS_WISHES {
        let file = directory.join(name.replace('/', "-"));
        fs::write(&file, format!("{value}\n"))?;
        bind(&file, Path::new("/proc/sys").join(name))?;
    }
    Ok(())
}
