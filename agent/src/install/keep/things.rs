//! What is kept besides the bpf file system: each is looked at without reading more than it takes.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fairlead_files::Put;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::Looked;
use super::stamp::Stamp;
use crate::bpf::{Mount, mounts};
use crate::install::setup::{copy_plugin, make_run_dir, write_api_server};
use crate::install::{API_SERVER, PLUGIN, Setup, on_node};
use crate::names;
use crate::wiring::Sysctls;

/// The things, and how they were when they were right.
pub(super) struct Things<'a> {
    setup: &'a Setup,
    /// Where the run directory and that of plugins were on their file systems, if this container has mounts of them.
    roots: [Option<PathBuf>; 2],
    plugin: Option<Stamp>,
    /// Of kubelet's kubeconfig and what was written of it.
    api_server: Option<[Option<Stamp>; 2]>,
}

impl<'a> Things<'a> {
    pub(super) fn new(setup: &'a Setup) -> Self {
        let roots = [&setup.run_dir, &setup.cni_bin_dir].map(|directory| root(directory));
        Self { setup, roots, plugin: None, api_server: None }
    }

    /// Whether the run directory was removed or moved of which this container has a mount.
    pub(super) fn run_dir_is_dead(&self) -> bool {
        let run_dir = &self.setup.run_dir;
        is_removed(run_dir) || is_moved(self.roots[0].as_deref(), run_dir)
    }

    /// The run directory, and that of names in it. The agent makes its sockets and files there anew by itself.
    pub(super) fn run_dir(&self) -> Looked {
        let run_dir = &self.setup.run_dir;
        if self.run_dir_is_dead() {
            return Err(removed(run_dir));
        }
        let names = run_dir.join(names::DIRECTORY);
        if names::is_directory(&names) {
            return Ok(None);
        }
        let is_new = make_run_dir(run_dir).map_err(|error| error.to_string())?;
        let names = names.display();
        Ok(Some(match is_new {
            true => format!(
                "{names} was made; a fairlead-dns that was started before has the old one: restart it (kubectl -n kube-system \
                 delete pod), or domainNames open nothing on this node"
            ),
            false => format!("the mode or the group of {names} was set right"),
        }))
    }

    /// The kernel's settings. An agent that runs looks at them itself, and the record of what they were has one writer.
    pub(super) fn settings(&self) -> Looked {
        let Setup { run_dir, proc_sys, parts, .. } = self.setup;
        if !parts.serves() || is_listening(&run_dir.join("agent.sock")) {
            return Ok(None);
        }
        let kept = Sysctls::new(proc_sys, run_dir).prepare();
        if !kept.errors.is_empty() {
            return Err(kept.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        }
        Ok((!kept.changed.is_empty()).then(|| kept.changed.join(", ")))
    }

    /// The API server's URL, which follows kubelet's: where that changes, agents that lose the API server find it again.
    pub(super) fn api_server(&mut self) -> Looked {
        let Setup { run_dir, kubelet_kubeconfig, api_server, .. } = self.setup;
        let written = run_dir.join(API_SERVER);
        let stamps = [Stamp::of(kubelet_kubeconfig), Stamp::of(&written)];
        if self.api_server == Some(stamps) {
            return Ok(None);
        }
        self.api_server = None;
        let (text, is_changed) = write_api_server(run_dir, kubelet_kubeconfig, api_server.as_deref())?;
        // What was changed is looked at once more: somebody may have changed it again before it could be seen.
        self.api_server = (!is_changed).then_some(stamps);
        Ok(is_changed.then(|| format!("{}: {text}", written.display())))
    }

    /// The plugin.
    pub(super) fn plugin(&mut self) -> Looked {
        let Setup { plugin, cni_bin_dir, parts, .. } = self.setup;
        let path = cni_bin_dir.join(PLUGIN);
        if parts.wires() && (is_removed(cni_bin_dir) || is_moved(self.roots[1].as_deref(), cni_bin_dir)) {
            return Err(removed(cni_bin_dir));
        }
        let stamp = Stamp::of(&path);
        if !parts.wires() || self.plugin.is_some() && self.plugin == stamp {
            return Ok(None);
        }
        self.plugin = None;
        let put = copy_plugin(plugin, cni_bin_dir).map_err(|error| error.to_string())?;
        // The same.
        self.plugin = stamp.filter(|_| put == Put::Same);
        Ok((put != Put::Same).then(|| format!("{} {}", on_node(&path).display(), put.as_str())))
    }
}

/// Whether somebody listens at a socket. One that does not answer listens too, and is not waited for.
fn is_listening(path: &Path) -> bool {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let asked = socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .and_then(|fd| connect(fd.as_raw_fd(), &UnixAddr::new(path)?));
    matches!(asked, Ok(()) | Err(Errno::EAGAIN))
}

/// Whether a directory was removed of which this container has a mount.
fn is_removed(directory: &Path) -> bool {
    directory.metadata().is_ok_and(|meta| meta.nlink() == 0)
}

/// Whether a directory of which this container has a mount is elsewhere by now: what is at its place is another one.
fn is_moved(before: Option<&Path>, directory: &Path) -> bool {
    before.is_some() && root(directory).is_some_and(|now| Some(now.as_path()) != before)
}

/// The path on its file system of what is mounted at a directory. `None`: nothing is mounted there.
fn root(directory: &Path) -> Option<PathBuf> {
    root_of(mounts().ok()?, directory)
}

/// The same, of these mounts.
fn root_of(mounts: Vec<Mount>, directory: &Path) -> Option<PathBuf> {
    mounts.into_iter().rev().find(|mount| mount.at == directory).map(|mount| mount.root)
}

pub(super) fn removed(directory: &Path) -> String {
    let on_node: PathBuf = on_node(directory);
    format!(
        "the directory {} was removed or moved on the node, and this container has the old one: make the pod anew (kubectl -n kube-system \
         delete pod)",
        on_node.display()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_listened_at_while_somebody_does() {
        let path = std::env::temp_dir().join(format!("fairlead-listening-{}", std::process::id()));
        assert!(!is_listening(&path));
        let listener = UnixListener::bind(&path).unwrap();
        // Each connection that was closed stays in its queue, which nobody serves.
        let full = (0..10_000).all(|_| is_listening(&path));
        drop(listener);
        let after = is_listening(&path);
        std::fs::remove_file(&path).unwrap();
        assert!(full && !after);
    }

    #[test]
    fn where_a_directory_is_mounted_from_is_read() {
        let mount = |root: &str, at: &str| Mount {
            device: "0:1".to_owned(),
            root: root.into(),
            at: at.into(),
            kind: "ext4".to_owned(),
        };
        let mut mounts = vec![mount("/opt/cni/bin", "/host/opt/cni/bin"), mount("/fairlead", "/run/fairlead")];
        let root = |mounts: &[Mount], at: &str| root_of(mounts.to_vec(), Path::new(at));
        assert_eq!(root(&mounts, "/host/opt/cni/bin"), Some("/opt/cni/bin".into()));
        assert_eq!(root(&mounts, "/run/fairlead"), Some("/fairlead".into()));
        assert_eq!(root(&mounts, "/run"), None);
        mounts.push(mount("/", "/run/fairlead"));
        assert_eq!(root(&mounts, "/run/fairlead"), Some("/".into()), "the last one is seen");
    }

    #[test]
    fn a_directory_that_was_removed_is_told_from_one_that_is_there_and_from_none() {
        let path = std::env::temp_dir().join(format!("fairlead-removed-{}", std::process::id()));
        assert!(!is_removed(&path));
        std::fs::create_dir(&path).unwrap();
        assert!(!is_removed(&path));
        let held = std::fs::File::open(&path).unwrap();
        std::fs::remove_dir(&path).unwrap();
        assert!(is_removed(Path::new(&format!("/proc/self/fd/{}", held.as_raw_fd()))));
    }
}
