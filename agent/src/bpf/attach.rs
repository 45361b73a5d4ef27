//! Which program goes where, and how on which kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use aya::programs::{Program, SchedClassifier, TestRunOptions};
use aya::util::KernelVersion;
use aya::{Ebpf, TestRun as _};
use fairlead_datapath::flow::{FlowKey, Table};
use fairlead_datapath::slot_of;
use fairlead_datapath::walk::{MAX_KEYS, Over, SweepRequest};
use fairlead_objects::causes;
use tracing::{debug, info, warn};

use super::clsact::{self, Filter};
use super::filters::{
    GUARD, OF_BARE_UPLINK, OF_OVERLAY, OF_POD, OF_SERVICES, OF_UPLINK, PodFilters, Rank, is_of_uplink,
};
use super::later::{Later, Linked};
use super::links::{self, Target};
use super::xdp::AtUplinks;
use super::{BpfError, PinDir, Sentry};
use crate::repair::FilterPlace;

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`.
pub(super) const TCX: [u32; 2] = [46, 47];

/// `BPF_XDP`, the same.
const XDP: u32 = 37;

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

/// How packet programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PacketAttach {
    /// tcx, by pinned links: from Linux 6.6 on.
    Tcx,
    /// Filters of the clsact qdisc: they stay without any pin until somebody removes them.
    Clsact,
}

/// A place for a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The hook of an interface, by its index: what comes in there, or what leaves by it.
    Interface { ifindex: u32, ingress: bool },
    /// The driver of an uplink.
    Xdp { ifindex: u32 },
    /// Behind that of an interface.
    Guard { ifindex: u32, ingress: bool },
    /// The cgroup of the socket programs, by `enum bpf_attach_type`.
    Cgroup(u32),
}

/// How something is attached.
#[derive(Debug)]
pub(super) enum Means {
    /// By a link that is pinned there.
    Link(PathBuf),
    /// As a filter.
    Filter(FilterPlace),
}

/// What belongs there.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) program: &'static str,
    /// The name of the interface, or the path of the cgroup.
    pub(super) target: String,
    /// The link, where the program is attached by one.
    pub(super) link: Option<OwnedFd>,
    /// Whether a filter stands in for the link, which is yet to come.
    pub(super) begun: bool,
    /// When it was attached last.
    pub(super) since: Instant,
}

/// The loaded programs and where they are attached.
#[derive(Debug)]
pub struct Hooks {
    ebpf: Ebpf,
    pub(super) pins: PinDir,
    packet: PacketAttach,
    /// The ids of the programs.
    pub(super) ids: BTreeMap<String, u32>,
    pub(super) hooks: BTreeMap<Place, Hook>,
    /// Who makes links of pods that have begun with filters.
    later: Option<Arc<Later>>,
    /// Who puts back filters of pods, and the filters.
    pub(super) sentry: Option<(Sentry, PodFilters)>,
    pub(super) xdp: AtUplinks,
}

impl Hooks {
    /// Hooks of loaded programs.
    #[must_use]
    pub fn new(ebpf: Ebpf, pins: PinDir) -> Self {
        let packet = if has_tcx() { PacketAttach::Tcx } else { PacketAttach::Clsact };
        Self::by(packet, ebpf, pins)
    }

    /// The same, attached as on kernels without tcx, which newer ones can do as well.
    #[must_use]
    pub fn without_tcx(ebpf: Ebpf, pins: PinDir) -> Self {
        Self::by(PacketAttach::Clsact, ebpf, pins)
    }

    fn by(packet: PacketAttach, ebpf: Ebpf, pins: PinDir) -> Self {
        let id = |(name, program): (&str, &Program)| Some((name.to_owned(), program.info().ok()?.id()));
        let ids = ebpf.programs().filter_map(id).collect();
        Self { ebpf, pins, packet, ids, hooks: BTreeMap::new(), later: None, sentry: None, xdp: AtUplinks::default() }
    }

    /// The programs of pods, to begin with as filters. `done` is told of each pod that has got links since, for
    /// [`Hooks::linked`], and says whether anybody listens.
    ///
    /// # Errors
    /// The object lacks one of them, or there can be no thread.
    pub fn begin_with_filters(
        &mut self,
        done: impl Fn(Linked) -> bool + Send + 'static,
    ) -> Result<PodFilters, BpfError> {
        let filters = PodFilters::of(&self.ebpf)?;
        if self.packet == PacketAttach::Tcx {
            let started = Later::start(filters.clone(), self.pins.clone(), done);
            let attach =
                |source| BpfError::Attach { program: OF_POD[0], target: "pods by a thread".to_owned(), source };
            self.later = Some(started.map_err(attach)?);
        }
        Ok(filters)
    }

    /// Has filters of pods that somebody removes put back at once. The one that does looks away while `succeeded` says that
    /// another agent has taken over.
    ///
    /// # Errors
    /// The object lacks one of their programs, or there can be no thread or socket.
    pub fn watch_filters(&mut self, succeeded: impl Fn() -> bool + Send + 'static) -> Result<Sentry, BpfError> {
        let filters = PodFilters::of(&self.ebpf)?;
        let sentry = Sentry::start(filters.clone(), self.ids_of_pod(), succeeded).map_err(|source| {
            BpfError::Attach { program: OF_POD[0], target: "pods again when it is removed".to_owned(), source }
        })?;
        self.sentry = Some((sentry.clone(), filters));
        Ok(sentry)
    }

    /// Closes a pod whose programs could not be attached, where nothing else than a filter could be there: it is set up again with the
    /// first look that attaches them.
    pub fn close_without_programs(&self, ifindex: u32) {
        if let (PacketAttach::Clsact, Some((sentry, _))) = (self.packet, &self.sentry) {
            sentry.close(ifindex);
        }
    }

    /// The ids of the programs of pods' interfaces: of what comes in there, and of what leaves by it.
    pub(super) fn ids_of_pod(&self) -> [u32; 2] {
        [OF_POD[0], OF_POD[1]].map(|name| self.ids.get(name).copied().unwrap_or_default())
    }

    /// Takes note that a pod has got its filters by [`PodFilters::attach`], which began then. Where there is tcx it gets links
    /// later.
    pub fn begun(&mut self, link: &str, ifindex: u32, since: Instant) {
        let begun = self.later.is_some();
        for ingress in [false, true] {
            let program = if ingress { OF_POD[0] } else { OF_POD[1] };
            let hook = |program, begun| Hook { program, target: link.to_owned(), link: None, begun, since };
            self.hooks.insert(Place::Interface { ifindex, ingress }, hook(program, begun));
            self.hooks.insert(Place::Guard { ifindex, ingress }, hook(GUARD, false));
        }
        if let Some(later) = &self.later {
            later.push(ifindex, link);
        }
    }

    /// Takes note of the links that a pod has got.
    pub fn linked(&mut self, linked: Linked) {
        let Linked { ifindex, link: target, outcome } = linked;
        let links = match outcome {
            Ok(links) => links.map(Some),
            // It may have gone meanwhile.
            Err(error) if nix::net::if_::if_nametoindex(target.as_str()) != Ok(ifindex) => {
                debug!(link = target, %error, "a pod disappeared while its programs were being attached by links");
                [None, None]
            }
            Err(error) => {
                warn!(link = target, %error, "a pod keeps its filters: links are tried again within 10 s");
                [None, None]
            }
        };
        for (ingress, link) in [true, false].into_iter().zip(links) {
            let hook = self.hooks.get_mut(&Place::Interface { ifindex, ingress });
            if let Some(hook) = hook.filter(|hook| hook.begun && hook.target == target) {
                if link.is_some() {
                    hook.since = Instant::now();
                }
                (hook.begun, hook.link) = (false, link);
            }
        }
    }

    /// Takes note that a pod goes: it needs no links.
    pub fn ends(&mut self, ifindex: u32) {
        if let Some(later) = &self.later {
            later.take_back(ifindex);
        }
    }

    /// Whether the links of a pod that has begun with filters are made here, since nobody else has begun with them.
    pub(super) fn take_back(&self, ifindex: u32) -> bool {
        self.later.as_ref().is_some_and(|later| later.take_back(ifindex))
    }

    /// Attaches to the host side of a pod's veth, with a guard behind each program.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses.
    pub fn attach_pod(&mut self, link: &str, ifindex: u32) -> Result<(), BpfError> {
        // Nobody else needs to make its links any more; who has begun is waited for.
        self.take_back(ifindex);
        self.attach_both([OF_POD[0], OF_POD[1]], link, ifindex)?;
        self.attach_guards(link, ifindex)
    }

    /// Attaches to the host side of a pod that another plugin has wired. There is no guard behind it: what that plugin has attached
    /// there decides on what passes.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses.
    pub fn attach_foreign(&mut self, link: &str, ifindex: u32) -> Result<(), BpfError> {
        self.attach_both([OF_POD[0], OF_POD[1]], link, ifindex)
    }

    /// Takes the socket programs off, which an agent before has left: another proxy serves there now.
    pub fn detach_sockets(&self) {
        for (program, _) in SOCKET {
            let pin = self.pins.link(&format!("cgroup_{program}"));
            match links::remove(&pin) {
                Ok(()) => info!(program, "no longer serves Services at sockets: detached"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => warn!(program, %error, "can't be detached: Services are still served at sockets"),
            }
        }
    }

    /// Attaches to an interface that leads out of the node. `bare`: its packets have no Ethernet header.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses.
    pub fn attach_uplink(&mut self, link: &str, ifindex: u32, bare: bool) -> Result<(), BpfError> {
        self.attach_both(if bare { OF_BARE_UPLINK } else { OF_UPLINK }, link, ifindex)
    }

    /// Takes the programs off an interface that is no uplink any more, is gone, or has another name.
    pub fn detach_uplink(&mut self, link: &str, ifindex: u32) {
        for ingress in [true, false] {
            let place = Place::Interface { ifindex, ingress };
            let is_it = |hook: &Hook| hook.target == link && is_of_uplink(hook.program);
            let Some(hook) = self.hooks.get(&place).filter(|hook| is_it(hook)) else { continue };
            let program = hook.program;
            let result = match self.means(place, hook) {
                Means::Link(pin) => links::remove(&pin).map(|()| true),
                // It may have another name by now.
                Means::Filter(_) => clsact::remove(ifindex, ingress, Rank::PROGRAM, program),
            };
            if !matches!(result, Ok(true)) {
                debug!(link, program, ?result, "the program was already detached");
            }
            self.hooks.remove(&place);
        }
    }

    /// Takes the programs off interfaces that an agent before had as uplinks, and that are none or have another name: nobody
    /// would replace them. Pods' and those `kept` are left.
    pub fn detach_other_uplinks(&self, kept: &[(&str, u32)]) {
        match self.packet {
            PacketAttach::Tcx => self.detach_other_links(kept),
            PacketAttach::Clsact => self.detach_other_filters(kept),
        }
    }

    fn detach_other_links(&self, kept: &[(&str, u32)]) {
        let of = |(name, ifindex): &(&str, u32)| ["in", "out"].map(|way| (self.pins.packet_link(way, name), *ifindex));
        let kept: BTreeSet<(PathBuf, u32)> = kept.iter().flat_map(of).collect();
        let names = self.pins.links().inspect_err(|error| warn!(%error, "can't look for links of a previous agent"));
        for pin in names.unwrap_or_default().iter().map(|name| self.pins.link(name)) {
            // Those without an interface go with the sweep.
            let Some(ifindex) = links::interface(&pin).filter(|ifindex| *ifindex != 0) else { continue };
            let is_other = slot_of(ifindex).is_some() || self.is_foreign(ifindex) || links::is_xdp(&pin);
            if is_other || kept.contains(&(pin.clone(), ifindex)) {
                continue;
            }
            let link = pin.display();
            match links::remove(&pin) {
                Ok(()) => info!(%link, "no longer an uplink: detached"),
                Err(error) => warn!(%link, %error, "no longer an uplink, and can't be detached"),
            }
        }
    }

    /// Whether it is the host side of a pod that another plugin has wired.
    fn is_foreign(&self, ifindex: u32) -> bool {
        let hook = self.hooks.get(&Place::Interface { ifindex, ingress: true });
        hook.is_some_and(|hook| hook.program == OF_POD[0]) && slot_of(ifindex).is_none()
    }

    fn detach_other_filters(&self, kept: &[(&str, u32)]) {
        for link in nix::net::if_::if_nameindex().iter().flat_map(|links| links.iter()) {
            let name = link.name().to_string_lossy();
            if kept.iter().any(|(kept, _)| *kept == name) || slot_of(link.index()).is_some() {
                continue;
            }
            // Pods of another plugin may be Fairlead's own by now.
            let of_pod = (!self.is_foreign(link.index())).then_some([OF_POD[0], OF_POD[1]]);
            let programs = [OF_UPLINK, OF_BARE_UPLINK].into_iter().chain(of_pod);
            for (program, ingress) in programs.flat_map(|of| of.into_iter().zip([true, false])) {
                match clsact::remove(link.index(), ingress, Rank::PROGRAM, program) {
                    Ok(false) => {}
                    Ok(true) => info!(link = %name, program, "no longer an uplink: detached"),
                    Err(error) => debug!(link = %name, program, %error, "nothing to detach"),
                }
            }
        }
    }

    /// Attaches to the tunnel's device, with a guard behind each program.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses.
    pub fn attach_overlay(&mut self, link: &str, ifindex: u32) -> Result<(), BpfError> {
        self.attach_both(OF_OVERLAY, link, ifindex)?;
        self.attach_guards(link, ifindex)
    }

    /// Attaches to the device for what the node itself sends to services, with a guard behind the program. What comes in there
    /// programs have sent.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses.
    pub fn attach_services(&mut self, link: &str, ifindex: u32) -> Result<(), BpfError> {
        let (program, guard) = (Place::Interface { ifindex, ingress: false }, Place::Guard { ifindex, ingress: false });
        self.claim(program, OF_SERVICES, link);
        self.attach(program)?;
        self.claim(guard, GUARD, link);
        self.attach(guard)
    }

    /// Attaches the socket programs at a cgroup. Those that the object lacks are left out.
    ///
    /// # Errors
    /// It is no cgroup v2 directory, or the kernel refuses.
    pub fn attach_sockets(&mut self, cgroup: &Path) -> Result<usize, BpfError> {
        let mut attached = 0;
        for (program, attach_type) in SOCKET {
            if self.ebpf.program(program).is_some() {
                self.claim(Place::Cgroup(attach_type), program, &cgroup.to_string_lossy());
                self.attach(Place::Cgroup(attach_type))?;
                attached += 1;
            }
        }
        debug!(attached, cgroup = %cgroup.display(), "socket programs attached");
        Ok(attached)
    }

    /// Takes flows out of a table, if they still are over. Says how many stay, since the kernel or a packet is busy with them.
    ///
    /// # Errors
    /// The program is missing, or the kernel does not run it.
    pub fn end_flows(&mut self, table: Table, over: Over, keys: &[FlowKey]) -> Result<usize, BpfError> {
        const PROGRAM: &str = "sweep";
        let program = self.ebpf.program_mut(PROGRAM).and_then(|program| <&mut SchedClassifier>::try_from(program).ok());
        let program = program.ok_or_else(|| BpfError::Missing { what: "program", name: PROGRAM.to_owned() })?;
        let request = SweepRequest::new(table, over);
        let mut left = 0;
        for keys in keys.chunks(MAX_KEYS as usize) {
            let frame = request.frame(keys);
            let result = program.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() });
            let result = result.map_err(|error| BpfError::Run { program: PROGRAM, reason: causes(&error) })?;
            left += result.return_value as usize;
        }
        Ok(left)
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

    /// Attaches a program to each direction of an interface, what leaves by it first.
    fn attach_both(&mut self, programs: [&'static str; 2], link: &str, ifindex: u32) -> Result<(), BpfError> {
        for (program, ingress) in programs.into_iter().zip([true, false]).rev() {
            self.claim(Place::Interface { ifindex, ingress }, program, link);
        }
        for ingress in [false, true] {
            self.attach(Place::Interface { ifindex, ingress })?;
        }
        Ok(())
    }

    /// Attaches the guards of an interface. Its programs have to be there, and to be this agent's: those of a version without
    /// guards leave it to whatever comes next what passes.
    fn attach_guards(&mut self, link: &str, ifindex: u32) -> Result<(), BpfError> {
        let mut attach = |ingress| {
            self.claim(Place::Guard { ifindex, ingress }, GUARD, link);
            self.attach(Place::Guard { ifindex, ingress })
        };
        // Each by itself: what is in the way of one may be in no other's.
        let outgoing = attach(false);
        attach(true).and(outgoing)
    }

    /// Notes that a program belongs to a place. What was there of an interface of another name is gone with that.
    pub(super) fn claim(&mut self, place: Place, program: &'static str, target: &str) {
        let hook = Hook { program, target: target.to_owned(), link: None, begun: false, since: Instant::now() };
        match self.hooks.get_mut(&place) {
            Some(old) if old.program == program && old.target == target => old.begun = false,
            _ => drop(self.hooks.insert(place, hook)),
        }
    }

    /// How what belongs to a place is attached.
    pub(super) fn means(&self, place: Place, hook: &Hook) -> Means {
        let filter = |ifindex, ingress, rank: Rank| Means::Filter(FilterPlace { ifindex, ingress, priority: rank.0 });
        match place {
            Place::Interface { ifindex, ingress } if self.packet == PacketAttach::Clsact || hook.begun => {
                filter(ifindex, ingress, Rank::PROGRAM)
            }
            Place::Interface { ingress, .. } => {
                Means::Link(self.pins.packet_link(if ingress { "in" } else { "out" }, &hook.target))
            }
            Place::Xdp { .. } => Means::Link(self.pins.xdp_link(&hook.target)),
            Place::Guard { ifindex, ingress } => filter(ifindex, ingress, Rank::GUARD),
            Place::Cgroup(_) => Means::Link(self.pins.link(&format!("cgroup_{}", hook.program))),
        }
    }

    /// Attaches what belongs to a place, in place of what is attached there by an agent before, if there is something.
    pub(super) fn attach(&mut self, place: Place) -> Result<(), BpfError> {
        let Some(hook) = self.hooks.get(&place) else { return Ok(()) };
        let (program, means) = (hook.program, self.means(place, hook));
        let missing = || BpfError::Missing { what: "program", name: program.to_owned() };
        let loaded = self.ebpf.program(program).ok_or_else(missing)?;
        let result = match means {
            Means::Filter(FilterPlace { ifindex, ingress, priority }) => {
                loaded.fd().map_err(io::Error::other).and_then(|fd| {
                    let filter = Filter { ingress, rank: Rank(priority), name: program, program: fd.as_fd() };
                    clsact::put(ifindex, &[filter]).map(|()| None)
                })
            }
            Means::Link(pin) => with_target(place, &hook.target, |target, attach_type| {
                let prog = loaded.fd().map_err(io::Error::other)?;
                let own = hook.link.as_ref().map(AsFd::as_fd);
                links::attach(prog.as_fd(), target, attach_type, &pin, own).map(Some)
            }),
        };
        let target = || match place {
            Place::Interface { .. } | Place::Guard { .. } | Place::Xdp { .. } => {
                format!("the interface {}", hook.target)
            }
            Place::Cgroup(_) => hook.target.clone(),
        };
        let link = result.map_err(|source| BpfError::Attach { program, target: target(), source })?;
        let by_link = link.is_some();
        if let Some(hook) = self.hooks.get_mut(&place) {
            (hook.link, hook.since) = (link, Instant::now());
        }
        // A filter that stood in for it is in nobody's way, but of a version that may be gone.
        if let Place::Interface { ifindex, ingress } = place
            && by_link
            && slot_of(ifindex).is_some()
            && let Err(error) = clsact::remove(ifindex, ingress, Rank::PROGRAM, program)
        {
            debug!(program, ifindex, %error, "the filter behind a pod's link stays");
        }
        // One that an agent before attached stays where it was.
        if self.is_behind(place) { self.put_first(place) } else { Ok(()) }
    }

    /// Whether somebody else's program sees packets before the one that is attached by a link there.
    fn is_behind(&self, place: Place) -> bool {
        let Some(hook) = self.hooks.get(&place) else { return false };
        let (Some(program), Some(_)) = (self.ids.get(hook.program), &hook.link) else { return false };
        let first =
            with_target(place, &hook.target, |target, attach_type| Ok(links::is_first(*program, target, attach_type)));
        matches!(first, Ok(Some(false)))
    }

    /// Puts the program that is attached by a link before those of others.
    pub(super) fn put_first(&mut self, place: Place) -> Result<(), BpfError> {
        let Some(hook) = self.hooks.get(&place) else { return Ok(()) };
        let (Means::Link(pin), Some(link)) = (self.means(place, hook), &hook.link) else { return Ok(()) };
        let missing = |name: &str| BpfError::Missing { what: "program", name: name.to_owned() };
        let loaded = |name: &str| self.ebpf.program(name).ok_or_else(|| missing(name));
        let (prog, guard) = (loaded(hook.program)?, loaded(GUARD)?);
        let result = with_target(place, &hook.target, |target, attach_type| {
            let [prog, guard] = [prog.fd(), guard.fd()].map(|fd| fd.map_err(io::Error::other));
            links::put_first(link.as_fd(), (prog?.as_fd(), guard?.as_fd()), target, attach_type, &pin)
        });
        let target = format!("the interface {}", hook.target);
        let first = result.map_err(|source| BpfError::Attach { program: hook.program, target, source })?;
        if let Some(hook) = self.hooks.get_mut(&place) {
            (hook.link, hook.since) = (Some(first), Instant::now());
        }
        Ok(())
    }
}

/// Whether the kernel has tcx.
#[must_use]
pub fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// Does something with what a link of a place attaches to, and its `enum bpf_attach_type`.
pub(super) fn with_target<T>(
    place: Place,
    target: &str,
    act: impl FnOnce(Target, u32) -> io::Result<T>,
) -> io::Result<T> {
    let [ingress_type, egress_type] = TCX;
    match place {
        Place::Interface { ifindex, ingress } | Place::Guard { ifindex, ingress } => {
            act(Target::Interface(ifindex), if ingress { ingress_type } else { egress_type })
        }
        Place::Xdp { ifindex } => act(Target::Driver(ifindex), XDP),
        Place::Cgroup(attach_type) => {
            let dir = File::open(target)?;
            act(Target::Cgroup { id: dir.metadata()?.ino(), fd: dir.as_raw_fd().cast_unsigned() }, attach_type)
        }
    }
}
