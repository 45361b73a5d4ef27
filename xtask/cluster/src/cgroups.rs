//! Cgroups of nodes. Every hierarchy of the machine gets a directory for each node, which the node then takes for its root:
//! on a machine with v2 alone that is one, on a hybrid one it is one for each v1 controller and one for v2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

/// Where a node, like any machine, has them.
const ROOT: &str = "/sys/fs/cgroup";
/// On v2 a cgroup that hands controllers to its children has no processes of its own: the node's go here.
const LEAF: &str = "init.scope";

/// One hierarchy of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hierarchy {
    /// The name below /sys/fs/cgroup; none if it is mounted right there.
    pub name: Option<String>,
    /// The v1 controllers, or `name=…`, as mount(8) takes them; none for v2.
    pub controllers: Option<String>,
    /// The directory below which clusters have theirs.
    pub parent: PathBuf,
}

impl Hierarchy {
    fn is_v2(&self) -> bool {
        self.controllers.is_none()
    }

    /// v2 alone: containers' resources are limited by it, too.
    fn is_pure_v2(&self) -> bool {
        self.is_v2() && self.name.is_none()
    }
}

/// The hierarchies in the texts of /proc/mounts and /proc/self/cgroup.
///
/// A v1 directory is made below this process's own, so that limits which hold for us hold for the cluster. v2 is the
/// exception where it has controllers: there a cgroup with processes can't have children with controllers.
pub(crate) fn hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = mounts.lines().filter_map(|line| hierarchy(line, own)).collect();
    found.dedup_by(|a, b| a.name == b.name);
    found
}

fn hierarchy(line: &str, own: &str) -> Option<Hierarchy> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [_, target, kind, options, ..] = fields[..] else { return None };
    let name = target.strip_prefix(ROOT)?.trim_start_matches('/');
    let name = (!name.is_empty()).then(|| name.to_owned());
    let controllers = match kind {
        "cgroup2" => None,
        "cgroup" => Some(controllers(options)),
        _ => return None,
    };
    let mut found = Hierarchy { name, controllers, parent: PathBuf::from(target) };
    if !found.is_pure_v2() {
        let wanted = found.controllers.clone().unwrap_or_default();
        let path = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (list, path) = (parts.next()?, parts.next()?);
            same_list(list, &wanted).then_some(path)
        });
        found.parent.push(path.unwrap_or_default().trim_start_matches('/'));
    }
    Some(found)
}

/// What of a mount's options says which hierarchy it is.
fn controllers(options: &str) -> String {
    let known = ["rw", "ro", "relatime", "nosuid", "nodev", "noexec", "xattr", "clone_children", "noprefix"];
    let own = options.split(',').filter(|option| !known.contains(option) && !option.starts_with("release_agent="));
    own.collect::<Vec<_>>().join(",")
}

fn same_list(a: &str, b: &str) -> bool {
    let sorted = |list: &str| {
        let mut words: Vec<String> = list.split(',').map(str::to_owned).collect();
        words.sort();
        words
    };
    sorted(a) == sorted(b)
}

/// The hierarchies of this machine, with parents that exist here.
pub(crate) fn find() -> Result<Vec<Hierarchy>> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = hierarchies(&fs::read_to_string("/proc/self/mounts")?, &own);
    for hierarchy in &mut found {
        // In a container the path is that of the machine outside: what is mounted is all there is then.
        while !hierarchy.parent.is_dir() && hierarchy.parent.pop() {}
        ensure!(hierarchy.parent.starts_with(ROOT), "{ROOT} is not as /proc/self/mounts says");
    }
    ensure!(
        found.iter().any(Hierarchy::is_v2),
        "no cgroup v2 is mounted: `mount -t cgroup2 none {ROOT}/unified` on a machine with v1 controllers"
    );
    Ok(found)
}

/// Makes a node's directory in every hierarchy.
pub(crate) fn make(hierarchies: &[Hierarchy], name: &str) -> Result<()> {
    for hierarchy in hierarchies {
        let directory = hierarchy.parent.join(name);
        fs::create_dir_all(&directory).with_context(|| format!("can't make the cgroup {}", directory.display()))?;
        if hierarchy.is_pure_v2() {
            enable_controllers(&hierarchy.parent)?;
        }
        // A cpuset that is not filled in takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let from = hierarchy.parent.join(file);
            if !hierarchy.is_v2() && from.exists() {
                fs::write(directory.join(file), fs::read(&from)?)?;
            }
        }
    }
    Ok(())
}

/// Lets the children of a v2 cgroup have all of its controllers.
fn enable_controllers(directory: &Path) -> Result<()> {
    let controllers = fs::read_to_string(directory.join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}")).with_context(|| {
            format!(
                "can't enable {controller} for the children of {}: does it have processes of its own?",
                directory.display()
            )
        })?;
    }
    Ok(())
}

/// Moves this process into a node's directories.
pub(crate) fn enter(hierarchies: &[Hierarchy], name: &str) -> Result<()> {
    for hierarchy in hierarchies {
        let directory = hierarchy.parent.join(name);
        let leaf = directory.join(LEAF);
        let target = if hierarchy.is_pure_v2() && leaf.is_dir() { leaf } else { directory }.join("cgroup.procs");
        fs::write(&target, "0").with_context(|| format!("can't enter {}", target.display()))?;
    }
    Ok(())
}

/// Mounts the hierarchies where a machine has them, once this process takes its own directories for their roots.
pub(crate) fn mount_all(hierarchies: &[Hierarchy]) -> Result<()> {
    if hierarchies.iter().any(Hierarchy::is_pure_v2) {
        mount(Some("cgroup2"), ROOT, Some("cgroup2"), MsFlags::empty(), None::<&str>)?;
        let leaf = Path::new(ROOT).join(LEAF);
        fs::create_dir_all(&leaf)?;
        fs::write(leaf.join("cgroup.procs"), "0")?;
        return enable_controllers(Path::new(ROOT));
    }
    mount(Some("tmpfs"), ROOT, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    for hierarchy in hierarchies {
        let Some(name) = &hierarchy.name else { continue };
        let target = Path::new(ROOT).join(name);
        fs::create_dir(&target)?;
        let kind = if hierarchy.is_v2() { "cgroup2" } else { "cgroup" };
        mount(Some(kind), &target, Some(kind), MsFlags::empty(), hierarchy.controllers.as_deref())
            .with_context(|| format!("can't mount {}", target.display()))?;
        for controller in name.split(',').filter(|controller| controller != name) {
            std::os::unix::fs::symlink(name, Path::new(ROOT).join(controller))?;
        }
    }
    Ok(())
}

/// Removes a node's directories. A cgroup stays busy for a moment after its last process.
pub(crate) fn remove(hierarchies: &[Hierarchy], name: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    for directory in hierarchies.iter().map(|hierarchy| hierarchy.parent.join(name)) {
        while let Err(error) = remove_tree(&directory) {
            ensure!(Instant::now() < deadline, "the cgroup {} stays: {error}", directory.display());
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_machine_has_one_for_each_controller_and_v2() {
        let mounts = "proc /proc proc rw 0 0\ntmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,relatime,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,release_agent=/x,name=systemd 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0\n";
        let own = "4:cpuacct,cpu:/user/me\n1:name=systemd:/session\n0::/session\n";
        let found = hierarchies(mounts, own);
        let summary: Vec<(&str, Option<&str>, &str)> = found
            .iter()
            .map(|h| (h.name.as_deref().unwrap(), h.controllers.as_deref(), h.parent.to_str().unwrap()))
            .collect();
        assert_eq!(
            summary,
            [
                ("cpu,cpuacct", Some("cpu,cpuacct"), "/sys/fs/cgroup/cpu,cpuacct/user/me"),
                ("systemd", Some("name=systemd"), "/sys/fs/cgroup/systemd/session"),
                ("unified", None, "/sys/fs/cgroup/unified/session"),
            ]
        );
    }

    #[test]
    fn a_machine_with_v2_alone_has_one_at_the_root() {
        let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\n";
        let found = hierarchies(mounts, "0::/user.slice/session-3.scope\n");
        assert_eq!(found, [Hierarchy { name: None, controllers: None, parent: "/sys/fs/cgroup".into() }]);
        assert!(found[0].is_pure_v2());
    }
}
