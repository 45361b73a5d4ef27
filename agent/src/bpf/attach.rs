//! Which program goes where, and how on which kernel.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, TestRunOptions};
use aya::util::KernelVersion;
use aya::{Ebpf, TestRun as _};
use fairlead_datapath::flow::{FlowKey, Over, Table};
use fairlead_datapath::walk::{MAX_KEYS, SweepRequest};
use fairlead_objects::causes;
use tracing::debug;

use super::links::{self, Target};
use super::{BpfError, PinDir};

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`.
const TCX: [u32; 2] = [46, 47];

/// The socket programs, with their `enum bpf_attach_type`.
const SOCKET: [(&str, u32); 10] = [
    ("bind4", 8),
    ("bind6", 9),
    ("connect4", 10),
    ("connect6", 11),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
    ("recvmsg4", 19),
    ("recvmsg6", 20),
    ("getpeername4", 29),
    ("getpeername6", 30),
];

/// Priority and handle of our filters where there is no tcx: fixed, so that the next agent replaces them.
const NETLINK: (u16, TcHandle) = (50, TcHandle::new(0, 1));

/// How packet programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PacketAttach {
    /// tcx, by pinned links: from Linux 6.6 on.
    Tcx,
    /// Filters of the clsact qdisc: they stay without any pin until somebody removes them.
    Clsact,
}

/// The loaded programs and where they are attached.
#[derive(Debug)]
pub struct Hooks {
    ebpf: Ebpf,
    pins: PinDir,
    packet: PacketAttach,
}

impl Hooks {
    /// Hooks of loaded programs.
    #[must_use]
    pub fn new(ebpf: Ebpf, pins: PinDir) -> Self {
        let tcx = KernelVersion::current().is_ok_and(|v| v >= KernelVersion::new(6, 6, 0));
        Self { ebpf, pins, packet: if tcx { PacketAttach::Tcx } else { PacketAttach::Clsact } }
    }

    /// Attaches to the host side of a pod's veth.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses.
    pub fn attach_pod(&mut self, link: &str, ifindex: u32) -> Result<(), BpfError> {
        self.attach_packet("to_pod", link, ifindex, TcAttachType::Egress)?;
        self.attach_packet("from_pod", link, ifindex, TcAttachType::Ingress)
    }

    /// Attaches to an interface that leads out of the node.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses.
    pub fn attach_uplink(&mut self, link: &str, ifindex: u32) -> Result<(), BpfError> {
        self.attach_packet("to_uplink", link, ifindex, TcAttachType::Egress)?;
        self.attach_packet("from_uplink", link, ifindex, TcAttachType::Ingress)
    }

    /// Attaches to the tunnel's device.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses.
    pub fn attach_overlay(&mut self, link: &str, ifindex: u32) -> Result<(), BpfError> {
        self.attach_packet("to_overlay", link, ifindex, TcAttachType::Egress)?;
        self.attach_packet("from_overlay", link, ifindex, TcAttachType::Ingress)
    }

    /// Attaches the socket programs at a cgroup. Those that the object lacks are left out.
    ///
    /// # Errors
    /// It is no cgroup v2 directory, or the kernel refuses.
    pub fn attach_sockets(&mut self, cgroup: &Path) -> Result<usize, BpfError> {
        let mut attached = 0;
        for (program, attach_type) in SOCKET {
            let Some(loaded) = self.ebpf.program(program) else { continue };
            let result = File::open(cgroup).and_then(|dir| {
                let target = Target::Cgroup { id: dir.metadata()?.ino(), fd: dir.as_raw_fd().cast_unsigned() };
                let prog = loaded.fd().map_err(io::Error::other)?;
                links::attach(prog.as_fd(), target, attach_type, &self.pins.link(&format!("cgroup_{program}")))
            });
            result.map_err(|source| BpfError::Attach { program, target: cgroup.display().to_string(), source })?;
            attached += 1;
        }
        debug!(attached, cgroup = %cgroup.display(), "socket programs attached");
        Ok(attached)
    }

    /// Takes flows out of a table, if they still are over. Says how many.
    ///
    /// # Errors
    /// The program is missing, or the kernel does not run it.
    pub fn end_flows(&mut self, table: Table, over: Over, keys: &[FlowKey]) -> Result<usize, BpfError> {
        const PROGRAM: &str = "sweep";
        let program = self.ebpf.program_mut(PROGRAM).and_then(|program| <&mut SchedClassifier>::try_from(program).ok());
        let program = program.ok_or_else(|| BpfError::Missing { what: "program", name: PROGRAM.to_owned() })?;
        let request = SweepRequest::new(table, over);
        let mut ended = 0;
        for keys in keys.chunks(MAX_KEYS as usize) {
            let frame = request.frame(keys);
            let result = program.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() });
            let result = result.map_err(|error| BpfError::Run { program: PROGRAM, reason: causes(&error) })?;
            ended += result.return_value as usize;
        }
        Ok(ended)
    }

    /// Removes the pins of links whose interface is gone. Says how many.
    ///
    /// # Errors
    /// The pins can't be listed or removed.
    pub fn remove_orphans(&self) -> Result<usize, BpfError> {
        links::remove_orphans(&self.pins)
    }

    /// The names of all pinned links.
    ///
    /// # Errors
    /// The pins can't be listed.
    pub fn links(&self) -> Result<Vec<String>, BpfError> {
        self.pins.links()
    }

    fn attach_packet(
        &mut self,
        program: &'static str,
        link: &str,
        ifindex: u32,
        direction: TcAttachType,
    ) -> Result<(), BpfError> {
        let missing = || BpfError::Missing { what: "program", name: program.to_owned() };
        let loaded = self.ebpf.program_mut(program).ok_or_else(missing)?;
        let loaded: &mut SchedClassifier = loaded.try_into().map_err(|_| missing())?;
        let ingress = direction == TcAttachType::Ingress;
        let result = match self.packet {
            PacketAttach::Tcx => {
                let [to_host, from_host] = TCX;
                let (attach_type, way) = if ingress { (to_host, "in") } else { (from_host, "out") };
                let pin = self.pins.packet_link(way, link);
                let prog = loaded.fd().map_err(io::Error::other);
                prog.and_then(|prog| links::attach(prog.as_fd(), Target::Interface(ifindex), attach_type, &pin))
            }
            PacketAttach::Clsact => attach_clsact(loaded, link, direction).map_err(io::Error::other),
        };
        result.map_err(|source| BpfError::Attach { program, target: format!("the interface {link}"), source })
    }
}

/// Replaces our filter, or adds it where there is none. It outlives the process, since its link is forgotten.
fn attach_clsact(program: &mut SchedClassifier, link: &str, direction: TcAttachType) -> Result<(), ProgramError> {
    let (priority, handle) = NETLINK;
    // An existing qdisc is no error: ours from before, or another's.
    if let Err(error) = tc::qdisc_add_clsact(link) {
        debug!(link, %error, "clsact qdisc not added");
    }
    let id = match SchedClassifierLink::attached(link, direction, priority, handle, None)
        .map_err(ProgramError::from)
        .and_then(|old| program.attach_to_link(old))
    {
        Ok(id) => id,
        Err(_) => {
            let options = TcAttachOptions::Netlink(NlOptions { priority, handle, classid: None });
            program.attach_with_options(link, direction, options)?
        }
    };
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Removes the filters of uplinks on kernels without tcx, where they have no pins to go with. Those of pods go with
/// their links.
pub fn remove_filters() {
    let links = nix::net::if_::if_nameindex();
    for link in links.iter().flat_map(|links| links.iter()) {
        let name = link.name().to_string_lossy();
        for (direction, program) in [(TcAttachType::Ingress, "from_uplink"), (TcAttachType::Egress, "to_uplink")] {
            if let Err(error) = tc::qdisc_detach_program(&name, direction, program) {
                debug!(link = %name, program, %error, "no filter to remove");
            }
        }
    }
}
