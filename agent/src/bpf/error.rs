//! What can go wrong between the agent and the kernel.

use std::io;
use std::path::PathBuf;

use super::TableLayout;

/// An error of this module. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The object can't be read.
    #[error("the eBPF object {origin} can't be read: {reason}; rebuild it with `cargo xtask ebpf`")]
    Object {
        /// The embedded object or a path.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A program that the agent runs by itself did not run.
    #[error("the program {program} can't be run: {reason}")]
    Run {
        /// Its name.
        program: &'static str,
        /// What the kernel says.
        reason: String,
    },
    /// The bpf file system is not there.
    #[error(
        "no bpf file system at {path}: {source}; mount one there on the node with `mount -t bpf -o mode=0700 bpf {path}`, or have \
         `fairlead install --keep` run there, which keeps it mounted"
    )]
    NoBpffs {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// It is another one than that with Fairlead's pins, which somebody holds.
    #[error(
        "the bpf file system at {path} has no pins of Fairlead's, and `fairlead install --keep`, which runs on this node, holds \
         another one: an agent that began here would begin with empty tables; the keeper puts back what it holds unless others \
         have pins in this one, and then: unmount this one on the node (umount {path})"
    )]
    Elsewhere {
        /// Where it is mounted.
        path: PathBuf,
    },
    /// Somebody else made, or may change, a directory of pins.
    #[error(
        "{path} {wrong}: whoever can write there controls all traffic of this node; find out who created it, remove \
         it (rm -r {path}) and restart the agent"
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        wrong: String,
    },
    /// A file below the pin directory can't be made, read or removed.
    #[error("{what} {path}: {source}")]
    Pin {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A pinned table has another layout than this version of the agent, and can't be read by it.
    #[error(
        "the pinned table {path} has {pinned}, and this agent needs {wanted}: it was created by a different version, \
         and can't be taken over: {why}; install the version that created it, or run `fairlead uninstall` on this node \
         (pods lose their network meanwhile) and restart the agent"
    )]
    Incompatible {
        /// The pin.
        path: PathBuf,
        /// What is pinned.
        pinned: Box<TableLayout>,
        /// What this agent has.
        wanted: Box<TableLayout>,
        /// Why it can't be read.
        why: String,
    },
    /// The object's tables are not those of this agent.
    #[error(
        "the eBPF object does not belong to this agent: table {table} is {reason}; rebuild it with `cargo xtask ebpf`"
    )]
    Foreign {
        /// The table.
        table: String,
        /// How it differs.
        reason: String,
    },
    /// aya could not load the object.
    #[error("the eBPF object can't be loaded: {0}; this needs root (CAP_BPF, CAP_NET_ADMIN) and Linux 6.1 or newer")]
    Load(String),
    /// The verifier or the kernel refused a program.
    #[error("the kernel refuses the program {program}: {source}\n{log}")]
    Program {
        /// Its name.
        program: String,
        /// What the kernel says.
        source: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
    /// The object has no such program or map.
    #[error(
        "the eBPF object has no {what} named {name}; it was built from a different version: rebuild it with `cargo \
         xtask ebpf`"
    )]
    Missing {
        /// `program` or `map`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A program can't be attached.
    #[error("the program {program} can't be attached to {target}: {source}")]
    Attach {
        /// Its name.
        program: &'static str,
        /// An interface or a cgroup.
        target: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// A map can't be read or written.
    #[error("{what} of the map {map} failed: {source}{remedy}")]
    Map {
        /// The operation.
        what: &'static str,
        /// The map.
        map: String,
        /// What the kernel says.
        source: io::Error,
        /// What to do, where that is known.
        remedy: &'static str,
    },
    /// No cgroup v2 is mounted.
    #[error(
        "no cgroup v2 file system is mounted at {below} or below; mount one on the node (`mount -t cgroup2 none \
         /sys/fs/cgroup`, next to cgroup v1: at /sys/fs/cgroup/unified), or give its root with --cgroup-root"
    )]
    NoCgroup2 {
        /// Where it was looked for.
        below: PathBuf,
    },
    /// The cgroup is this container's own.
    #[error(
        "{path} is the cgroup of this container only, so no pod's socket would reach services; mount the node's \
         /sys/fs/cgroup as a hostPath and give that with --cgroup-root"
    )]
    OwnCgroup {
        /// The directory.
        path: PathBuf,
    },
}

impl BpfError {
    /// Whether a program could not be attached because its interface is gone. The interface itself is asked for: what the kernel
    /// says of one that is gone it also says where a module is missing.
    #[must_use]
    pub fn is_of_vanished(&self, ifindex: u32) -> bool {
        matches!(self, Self::Attach { .. })
            && nix::net::if_::if_indextoname(ifindex).is_err_and(|error| error == nix::errno::Errno::ENXIO)
    }
}
