//! The loop: model → compile → plan → apply, in a thread of its own, since the system calls block.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_datapath::Addr;
use fairlead_datapath::catalog::TableId;
use fairlead_datapath::config::Config;
use fairlead_objects::{Event, Kind, ObjectKey};
use ipnetwork::IpNetwork;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};
use zerocopy::FromBytes as _;

use super::audit::Audit;
use super::content::{Content, Outcome};
use super::foreign;
use super::gauge::Gauge;
use super::gone::Gone;
use super::names::Keeper;
use super::ports::Ports;
use super::report::Report;
use super::sockets::Sockets;
use super::sweep;
use crate::audit::Collector;
use crate::bpf::{BpfError, Hooks, Linked, SocketList, Tables, XdpUplink};
use crate::cni::{AttachError, AttachedPod};
use crate::compile::{bandwidth as limits, node};
use crate::masquerade::PortRange;
use crate::model::{LocalPod, Model, Whole};
use crate::network::TunnelSettings;
use crate::parts::Parts;
use crate::repair::{Filters, Looked};
use crate::state::Shared;
use crate::wiring::{Framing, Uplink, overlay, svc};

/// How long an attachment waits for the Pod object. The CNI server gives up a second later.
const OBJECT_PATIENCE: Duration = Duration::from_secs(9);

/// How often tables are swept and pins of vanished interfaces removed.
const SWEEP: Duration = Duration::from_secs(10);

/// How soon, if somebody's room is short or a pod is gone.
const SOON: Duration = Duration::from_secs(1);

/// What the loop is told.
#[derive(Debug)]
pub(super) enum Input {
    /// By the source of objects.
    Event(Event),
    /// By the CNI server: attach, unless the pod has got its filters, which began then; and answer when its policy is in
    /// force.
    Attach(AttachedPod, Option<Instant>, oneshot::Sender<Result<(), AttachError>>),
    /// By whom makes links of pods that have begun with filters.
    Linked(Linked),
    /// By the wiring: the interfaces that lead out of the node.
    Uplinks {
        /// They.
        uplinks: Vec<Uplink>,
        /// Whether the Node was known. Until then one that only has the Node's address counts for less.
        is_node_known: bool,
    },
    /// By the wiring: every address of the node that others may know.
    Addresses(node::Addresses),
    /// By the wiring: the tunnel's device is there and down. Answered when the programs are attached to it.
    Overlay(oneshot::Sender<Result<(), BpfError>>),
    /// By the wiring: the device for services is there. Answered when its program is attached to it.
    Services(oneshot::Sender<Result<(), BpfError>>),
    /// By the wiring: look at what is attached and pinned, with the filters that exist.
    Look(Filters, oneshot::Sender<Looked>),
    /// By whom looks for pods of another plugin: attach to the interface of one that is in force.
    Hook(AttachedPod, oneshot::Sender<Result<(), BpfError>>),
    /// By the CNI server: take out, and answer when no table knows the pod.
    Detach(AttachedPod, oneshot::Sender<()>),
    /// By who answers the node's DNS server: a pod was told addresses.
    Told,
    /// By the CNI server: the same, and answer when nothing passes to or from the pod any more.
    Close(AttachedPod, oneshot::Sender<()>),
}

/// An attachment that waits for its Pod object.
struct Waiting {
    slot: u16,
    until: Instant,
    answer: oneshot::Sender<Result<(), AttachError>>,
}

/// The loop's state.
pub(super) struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) hooks: Hooks,
    pub(super) tables: Tables,
    pub(super) content: Content,
    /// Where NodePorts are, if not at the node's primary addresses.
    node_port_addresses: Vec<IpNetwork>,
    uplinks: Vec<Uplink>,
    /// Whether what an agent before has attached to other interfaces is gone.
    has_detached_others: bool,
    addresses: node::Addresses,
    tunnel: TunnelSettings,
    /// Source ports of translated flows.
    ports: PortRange,
    parts: Parts,
    limits: node::Limits,
    /// What holds as long as the tables do.
    since: node::Since,
    waiting: Vec<Waiting>,
    detached: Vec<oneshot::Sender<()>>,
    /// Who waits until nothing passes to or from a pod any more.
    closed: Vec<oneshot::Sender<()>>,
    gauge: Gauge,
    report: Report,
    port_report: Ports,
    audit: Audit,
    names: Keeper,
    sockets: Sockets,
    next_sweep: Instant,
    /// Pods that went since the last sweep.
    gone: Gone,
    /// Why the node has no addresses for its pods, as it was said last.
    range_trouble: Option<String>,
    /// Where the API server was asked last.
    api_server: Option<SocketAddr>,
}

impl Engine {
    pub(super) fn new(
        shared: Arc<Shared>,
        hooks: Hooks,
        tables: Tables,
        (content, names): (Content, Keeper),
        node_port_addresses: Vec<IpNetwork>,
        tunnel: TunnelSettings,
        limits: node::Limits,
    ) -> Self {
        let since = since(&tables, shared.adopted);
        // What was opened before it was closed does not go on for long.
        let first = if shared.model().rules().closed().is_empty() { SWEEP } else { SOON };
        let ports = shared.model().rules().masquerade.ports;
        let parts = shared.model().rules().parts;
        Self {
            port_report: Ports::new(&tables),
            shared,
            hooks,
            tables,
            content,
            node_port_addresses,
            uplinks: Vec::new(),
            has_detached_others: false,
            addresses: node::Addresses::default(),
            tunnel,
            ports,
            parts,
            limits,
            since,
            waiting: Vec::new(),
            detached: Vec::new(),
            closed: Vec::new(),
            gauge: Gauge::default(),
            report: Report::default(),
            audit: Audit::default(),
            names,
            sockets: Sockets::default(),
            next_sweep: Instant::now() + first,
            gone: Gone::default(),
            range_trouble: None,
            api_server: None,
        }
    }

    /// Runs until every sender is gone. One change is acted on at once; what is queued meanwhile is taken together.
    pub(super) fn run(mut self, mut inputs: mpsc::Receiver<Input>, runtime: &tokio::runtime::Handle) {
        loop {
            let wake = self.wake();
            match runtime.block_on(async { tokio::time::timeout_at(wake.into(), inputs.recv()).await }) {
                Ok(Some(input)) => self.take(input),
                Ok(None) => return self.content.keep_counts(&self.shared.model()),
                Err(_) => {}
            }
            while let Ok(input) = inputs.try_recv() {
                self.take(input);
            }
            self.settle();
            self.names.settle(&mut self.content, &mut self.tables, &self.shared);
            self.answer();
            self.look_at_range();
            if Instant::now() >= self.next_sweep {
                self.sweep();
            }
            self.look_at_sockets();
        }
    }

    fn wake(&self) -> Instant {
        let deadlines = self.waiting.iter().map(|w| w.until).chain(self.content.retry()).chain(self.sockets.due());
        let deadlines = deadlines.chain(self.names.due(&self.shared).filter(|_| self.content.has_settled_policy()));
        deadlines.fold(self.next_sweep, Ord::min)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                if matches!(event, Event::Applied(_) | Event::Deleted(..)) {
                    self.shared.freshness.taken();
                }
                self.gauge.see(&event, &self.shared);
                self.sockets.see(&event, &self.shared.model());
                if let Event::Invalid { kind: Some(kind), key: Some(key), origin: _, reason } = &event {
                    self.shared.events.warn_for_all(*kind, key, "InvalidObject", reason);
                }
                self.shared.model_mut().take(event);
            }
            Input::Attach(pod, filtered, answer) => self.attach(pod, filtered, answer),
            // It is taken over in any case.
            Input::Told => {}
            Input::Linked(linked) => self.hooks.linked(linked),
            Input::Uplinks { uplinks, is_node_known } => self.set_uplinks(uplinks, is_node_known),
            Input::Addresses(addresses) => self.set_addresses(addresses),
            Input::Overlay(answer) => drop(answer.send(self.hooks.attach_overlay(overlay::NAME, overlay::IFINDEX))),
            Input::Services(answer) => drop(answer.send(self.hooks.attach_services(svc::NAME, svc::IFINDEX))),
            Input::Look(filters, answer) => {
                let looked = self.hooks.look(&self.tables, &filters);
                self.tell_of_xdp();
                let _gave_up = answer.send(looked);
            }
            Input::Hook(pod, answer) => drop(answer.send(self.hooks.attach_foreign(&pod.host_link, pod.ifindex))),
            Input::Detach(pod, answer) => {
                self.detach(&pod);
                self.detached.push(answer);
            }
            Input::Close(pod, answer) => {
                self.detach(&pod);
                self.closed.push(answer);
            }
        }
    }

    /// Takes a pod out.
    fn detach(&mut self, pod: &AttachedPod) {
        self.waiting.retain(|waiting| waiting.slot != pod.slot);
        // The slot may be another pod's by now: a detachment can come late and twice.
        let (same, other) = {
            let model = self.shared.model();
            let local = model.local().get(&pod.slot);
            let same = local.is_some_and(|local| local.key == pod.key);
            (same, local.is_some_and(|local| local.foreign.is_some()) && !same)
        };
        if same {
            self.shared.model_mut().detach(pod.slot);
            self.names.detached(&pod.key, &self.shared);
            self.departs(pod);
        }
        // Where Fairlead has wired the pod that has the slot now, nothing may lead to this one.
        if pod.is_foreign()
            && !other
            && let Err(error) = foreign::forget(&self.tables, pod)
        {
            warn!(pod = %pod.key, %error, "can't forget the interface of a pod, which is gone");
        }
    }

    /// What a pod that goes leaves behind is looked after: links that it does not need, sockets that lead to it, its flows. Also
    /// of one that an agent before had on its way out, and that no model of this one's has had.
    pub(super) fn departs(&mut self, pod: &AttachedPod) {
        self.hooks.ends(pod.ifindex);
        self.sockets.detached(&pod.ips);
        self.gone.note(pod);
        self.next_sweep = self.next_sweep.min(Instant::now() + SOON);
    }

    /// Takes a pod in. One that has got its filters takes nothing that others would wait for.
    fn attach(
        &mut self,
        pod: AttachedPod,
        filtered: Option<Instant>,
        answer: oneshot::Sender<Result<(), AttachError>>,
    ) {
        let attached = match filtered {
            // Its interface is in use: the programs come when the tables say what they are to do.
            _ if pod.is_foreign() => foreign::note(&self.tables, &pod),
            Some(since) => {
                self.hooks.begun(&pod.host_link, pod.ifindex, since);
                Ok(())
            }
            None => self.hooks.attach_pod(&pod.host_link, pod.ifindex),
        };
        match attached {
            Ok(()) => {
                let slot = pod.slot;
                // It begins with no flow but its own.
                if self.gone.concerns(&pod) {
                    self.sweep();
                }
                let (key, uid) = (pod.key.clone(), pod.uid.clone().unwrap_or_default());
                self.shared.model_mut().attach(local(pod));
                self.names.attached(&key, &uid, &self.shared);
                let until = Instant::now() + OBJECT_PATIENCE;
                self.waiting.push(Waiting { slot, until, answer });
            }
            Err(error) => {
                warn!(pod = %pod.key, %error, "can't attach programs to a pod");
                let uid = pod.uid.as_deref().unwrap_or_default();
                self.shared.events.warn(Kind::Pod, &pod.key, uid, "NotAttached", error.to_string());
                let _gave_up = answer.send(Err(AttachError(error.to_string())));
            }
        }
    }

    /// Gives it the list by which it sees which backends UDP sockets are connected to.
    pub(super) fn list_sockets(&mut self, list: SocketList) {
        self.sockets.list(list);
    }

    /// Attaches to the interfaces out of the node and tells the programs of them.
    pub(super) fn set_uplinks(&mut self, uplinks: Vec<Uplink>, is_node_known: bool) {
        let same = |one: &Uplink, other: &Uplink| {
            one.ifindex == other.ifindex && one.name == other.name && one.framing == other.framing
        };
        // Gone, a bridge's port or a bond's member by now, excluded, or without IP. First, since the pins of one that was made
        // again have the same names.
        for before in self.uplinks.iter().filter(|before| !uplinks.iter().any(|uplink| same(before, uplink))) {
            self.hooks.detach_uplink(&before.name, before.ifindex);
        }
        // Beside another network the Node's addresses say which are uplinks. Until they are known, the programs of the agent before stay
        // where they are: what is not served for a second loses its connections.
        let is_told = is_node_known || self.parts.wires();
        if is_told && !std::mem::replace(&mut self.has_detached_others, true) {
            let served = if self.parts.serves() { &uplinks[..] } else { &[] };
            let own = served.iter().map(|uplink| (uplink.name.as_str(), uplink.ifindex));
            let made = [(overlay::NAME, overlay::IFINDEX), (svc::NAME, svc::IFINDEX)];
            self.hooks.detach_other_uplinks(&own.chain(made).collect::<Vec<_>>());
        }
        // The others are looked after (`Hooks::look`).
        let served = if self.parts.serves() { &uplinks[..] } else { &[] };
        let read = served.iter().filter(|uplink| uplink.framing != Framing::Other);
        for uplink in read.filter(|uplink| !self.uplinks.iter().any(|before| same(before, uplink))) {
            match self.hooks.attach_uplink(&uplink.name, uplink.ifindex, uplink.framing == Framing::Bare) {
                Ok(()) => {}
                // Containers' devices come and go all the time.
                Err(error) if error.is_of_vanished(uplink.ifindex) => {
                    debug!(%error, "an interface disappeared before programs were attached to it");
                }
                Err(error) => {
                    error!(%error, "can't attach to this interface: its traffic bypasses policy and services");
                }
            }
        }
        // Packets leave by the interface that they came in by, so other nodes have to be reached by it.
        let of_nodes = uplinks.iter().filter(|uplink| uplink.is_primary && uplink.framing == Framing::Ethernet);
        let of_xdp = |Uplink { ifindex, name, mtu, has_vlans, .. }: &Uplink| XdpUplink {
            ifindex: *ifindex,
            name: name.clone(),
            mtu: *mtu,
            has_vlans: *has_vlans,
        };
        self.hooks.set_xdp_uplinks(of_nodes.map(of_xdp).collect());
        if is_node_known {
            self.hooks.detach_other_xdp();
        }
        self.tell_of_xdp();
        self.content.set_paced(limits::is_paced(&uplinks));
        let primary = uplinks.iter().filter(|uplink| uplink.is_primary).map(|uplink| uplink.name.clone()).collect();
        self.shared.note(|progress| progress.uplinks = Some(primary));
        self.uplinks = uplinks;
        self.look_at_node();
        self.look_at_claims();
    }

    /// Says where XDP is and why not elsewhere; loudly, if it was asked for by name.
    fn tell_of_xdp(&self) {
        let xdp = self.hooks.xdp();
        let missing = xdp.iter().filter_map(|(uplink, obstacle)| Some(format!("{uplink}: {}", obstacle.as_ref()?)));
        let missing: Vec<_> = missing.filter(|_| self.hooks.wants_xdp()).collect();
        let text = || format!("no XDP at {}; traffic takes the slower way", missing.join("; at "));
        self.shared.warn("xdp", (!missing.is_empty()).then(text));
        self.shared.note(|progress| progress.xdp = xdp);
    }

    /// Tells the programs which addresses of the node lead to its ports.
    pub(super) fn set_addresses(&mut self, addresses: node::Addresses) {
        self.addresses = addresses;
        self.look_at_node();
        self.look_at_claims();
    }

    /// Tells the model what this node has.
    fn look_at_claims(&mut self) {
        let node::Addresses { own, broadcasts } = &self.addresses;
        self.shared.model_mut().set_addresses(node::own_addresses(&self.uplinks, own), broadcasts.iter().copied());
    }

    /// Works out what the programs are to know of the node. It is in force with the next plan.
    fn look_at_node(&mut self) {
        // What the agent before knew is better than a guess: which of the addresses is the node's, its object says.
        let (network, closed) = {
            let model = self.shared.model();
            if self.shared.adopted && model.own_node().is_none() && !model.synced() {
                return;
            }
            (
                node::network(&self.uplinks, &self.addresses.own, model.own_node(), self.tunnel),
                model.rules().closed().to_vec(),
            )
        };
        self.content.set_node(node::compile(
            &self.uplinks,
            &network,
            &self.addresses,
            node::Chosen {
                prefixes: &self.node_port_addresses,
                closed: &closed,
                ports: self.ports,
                limits: self.limits,
                parts: self.parts,
            },
            self.since,
        ));
        if network != self.shared.progress().network {
            self.content.set_network(&network);
            self.shared.note(|progress| progress.network = network);
            self.shared.model_mut().touch_network();
        }
    }

    /// Brings into force what changed.
    pub(super) fn settle(&mut self) {
        let (synced, place) = {
            let model = self.shared.model();
            (model.synced(), model.dirty().place(model.node_name()))
        };
        // The node's object says which of its addresses come first.
        if synced && (place || !self.content.knows_node()) {
            self.look_at_node();
        }
        let api_server = self.shared.api_server();
        if let Some(server) = api_server.filter(|_| api_server != self.api_server) {
            self.shared.model_mut().use_api_server(server);
            self.api_server = api_server;
        }
        self.names.begin(&mut self.content, &mut self.tables, &self.shared);
        let dirty = self.shared.model_mut().take_dirty();
        if !dirty.pods.is_empty() {
            self.shared.foreign.notify_one();
        }
        if !dirty.nodes.is_empty() || dirty.whole.contains(&Whole::Routes) {
            self.shared.look.notify_one();
        }
        if dirty.policy() {
            self.audit.changed();
        }
        let begin = Instant::now();
        let Outcome { plans, operations, whole, services, policy, names, refused, claims, node, failed } = {
            let model = self.shared.model();
            let in_force = self.shared.progress().in_force;
            let (waiting, closed, keeper) = (&mut self.waiting, &mut self.closed, &mut self.names);
            self.content.update(&model, &dirty, &mut self.tables, |names| {
                // Before a pod starts: what it asks for is known to be its.
                keeper.publish(names.cloned());
                if in_force {
                    answer_judged(&model, waiting, closed);
                }
            })
        };
        let took = begin.elapsed();
        self.report.policy(policy, &self.shared);
        self.names.publish(names);
        self.report.services(refused, &self.shared);
        self.report.claims(claims, &self.shared);
        self.report.node(node, &self.shared);
        for (text, pause) in &failed {
            self.gauge.failed(&self.shared);
            error!(error = text, again_in = ?pause, "can't apply changes: retrying");
            self.warn_of_node("NotInForce", text);
        }
        let settled = self.content.is_settled() && synced;
        if plans > 0 || !failed.is_empty() {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            debug!(plans, operations, micros, "changes applied");
            if settled && !self.shared.progress().in_force {
                info!(operations, micros, "initial state applied");
            }
            let (failures, trouble) = (self.content.failures(), self.content.trouble());
            self.shared.note(|progress| {
                progress.in_force |= settled;
                progress.plans += plans;
                progress.operations += operations;
                progress.last_micros = micros;
                progress.failures = failures;
                progress.trouble = trouble;
            });
        }
        // Also by a plan that is made again after it failed, or since there is room now.
        if services {
            self.sockets.services_changed();
        }
        if plans > 0 {
            self.gauge.planned(&dirty, whole, &self.content, &self.shared);
            self.report.fill(&self.shared);
        }
        match (settled, plans > 0) {
            (true, true) => self.gauge.in_force(whole, took, &self.shared),
            // What was told changed nothing.
            (true, false) => self.gauge.nothing_to_do(&self.shared),
            (false, _) => {}
        }
    }

    /// Says, once, that the node has no addresses for its pods, and that it has them.
    fn look_at_range(&mut self) {
        let trouble = self.shared.range_trouble();
        if trouble == self.range_trouble {
            return;
        }
        match &trouble {
            Some(text) => {
                error!("{text}");
                self.warn_of_node("NoPodRange", text);
            }
            None => info!("the node got a pod range"),
        }
        self.range_trouble = trouble;
    }

    fn warn_of_node(&self, reason: &'static str, note: &str) {
        let node = ObjectKey::cluster(self.shared.model().node_name());
        self.shared.events.warn(Kind::Node, &node, "", reason, note);
    }

    /// Answers those whose wish is in force, and those who waited too long.
    fn answer(&mut self) {
        let settled = self.content.has_settled_pods();
        if settled {
            for answer in self.detached.drain(..).chain(self.closed.drain(..)) {
                let _gave_up = answer.send(());
            }
        }
        let (model, now) = (self.shared.model(), Instant::now());
        if settled && self.shared.progress().in_force {
            answer_judged(&model, &mut self.waiting, &mut self.closed);
        }
        let mut still = Vec::new();
        for waiting in self.waiting.drain(..) {
            let local = model.local().get(&waiting.slot);
            let known = local.is_some_and(|local| model.object_of(local).is_some());
            if now >= waiting.until {
                let pod = local.map(|local| local.key.to_string()).unwrap_or_default();
                let text = if known {
                    format!("the policy of pod {pod} could not be applied: see `fairlead status`")
                } else {
                    format!("the Pod object of {pod} has not arrived: check the agent's source of objects")
                };
                let _gave_up = waiting.answer.send(Err(AttachError(text)));
            } else {
                still.push(waiting);
            }
        }
        drop(model);
        self.waiting = still;
    }

    /// Ends sockets of the node's processes whose other end is gone. Not before services are what objects say: a backend that
    /// is yet to be added has not left.
    fn look_at_sockets(&mut self) {
        if self.sockets.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        if self.content.is_settled() && self.shared.model().synced() {
            self.sockets.look(&self.tables, &self.content, &self.shared);
        } else {
            self.sockets.put_off();
        }
    }

    fn sweep(&mut self) {
        self.next_sweep = Instant::now() + SWEEP;
        if let Some(text) = &self.range_trouble {
            self.warn_of_node("NoPodRange", text);
        }
        match self.hooks.remove_orphans() {
            Ok(0) => {}
            Ok(removed) => debug!(removed, "removed the links of deleted interfaces"),
            Err(error) => warn!(%error, "can't remove the links of deleted interfaces"),
        }
        self.content.keep_counts(&self.shared.model());
        let kept = {
            let model = self.shared.model();
            let pods = model.local().values();
            sweep::Kept {
                pods: pods.flat_map(|pod| pod.ips.iter().map(|ip| (pod.slot, Addr::from(*ip)))).collect(),
                closed: model.rules().closed().iter().map(|ip| Addr::from(*ip)).collect(),
                lifetimes: self.limits.lifetimes,
                max_open: self.limits.open,
            }
        };
        let mut census = self.port_report.begin(&self.tables).unwrap_or_else(|error| {
            warn!(%error, "can't read which flows were refused a source port");
            None
        });
        let (seed, ports) = (self.since.seed, self.ports);
        if let Some(names) = self.audit.prepare(&self.shared) {
            self.names.audit(names);
        }
        let mut collector = self.audit.collector();
        let (census_of, audit) = (census.as_mut(), collector.as_mut());
        let mut lingering = self.names.lingering(&self.shared);
        let lookers = sweep::Lookers { census: census_of, audit, lingering: &mut lingering };
        let swept = sweep::flows(&self.tables, &mut self.hooks, &kept, seed, ports.count(), lookers);
        if let Some((seen, known)) = collector.map(Collector::end) {
            self.audit.tell(seen, known, &self.shared);
        }
        let seen = swept.is_ok().then_some(&lingering);
        self.names.swept(seen, &mut self.content, &mut self.tables, &self.shared);
        match swept {
            Ok(swept) => {
                self.port_report.tell(census, ports, &self.shared);
                if !swept.left {
                    self.gone.swept();
                }
                if swept.short || swept.left {
                    self.next_sweep = Instant::now() + SOON;
                }
                debug!(removed = swept.removed, "removed expired flows");
                self.gauge.swept(swept, &self.shared);
                self.report.fill(&self.shared);
            }
            Err(error) => warn!(%error, "can't remove expired flows: they take up space but are not used"),
        }
    }
}

/// Answers those whose pod is judged as the model says, or is closed.
fn answer_judged(model: &Model, waiting: &mut Vec<Waiting>, closed: &mut Vec<oneshot::Sender<()>>) {
    let is_known = |slot| model.local().get(&slot).is_some_and(|local| model.object_of(local).is_some());
    for waiting in waiting.extract_if(.., |waiting| is_known(waiting.slot)) {
        let _gave_up = waiting.answer.send(Ok(()));
    }
    for answer in closed.drain(..) {
        let _gave_up = answer.send(());
    }
}

/// The model's view of an attached pod.
pub(super) fn local(pod: AttachedPod) -> LocalPod {
    LocalPod {
        slot: pod.slot,
        foreign: pod.is_foreign().then_some(pod.ifindex),
        key: pod.key,
        uid: pod.uid.unwrap_or_default(),
        ips: pod.ips,
        pod_mac: pod.pod_mac.0,
        host_mac: pod.host_mac.0,
    }
}

/// Seconds in which connections that are older than new tables are picked up: what lives sends in that time, and what does
/// not is met by its endpoints' own resets.
const PICKUP: u32 = 120;

/// What holds as long as the tables do: until when connections are picked up that are older than they (tables of another agent
/// know every connection: never), and by what their counters are spread.
fn since(tables: &Tables, adopted: bool) -> node::Since {
    let known = || {
        let config = tables.map(TableId::Settings).ok()?.get(&0_u32.to_ne_bytes()).ok()??;
        Config::read_from_bytes(&config).ok()
    };
    // Whoever made tables and ended before it told them anything has known no connection.
    let before = known().filter(|config| adopted && config.seed != 0);
    let random = || RandomState::new().hash_one(std::process::id()) as u32 | 1;
    node::Since {
        pickup_until: sweep::seconds().map_or(0, |now| pickup_until(before.map(|config| config.pickup_until), now)),
        seed: before.map_or_else(random, |config| config.seed),
    }
}

/// Until when older connections are picked up, in seconds of this boot, as the time is. `before`: what an agent before has said; its time
/// goes on after it.
fn pickup_until(before: Option<u32>, now: u32) -> u32 {
    let most = now.saturating_add(PICKUP);
    before.map_or(most, |until| if until > now { until.min(most) } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::{PICKUP, pickup_until};

    #[test]
    fn the_time_in_which_connections_are_picked_up_goes_on_after_a_restart_and_does_not_begin_again() {
        assert_eq!(pickup_until(None, 1000), 1000 + PICKUP, "new tables, or some that nobody has used");
        assert_eq!(pickup_until(Some(1100), 1000), 1100);
        assert_eq!(pickup_until(Some(1000), 1000), 0, "it is over");
        assert_eq!(pickup_until(Some(0), 1000), 0);
        assert_eq!(pickup_until(Some(u32::MAX), 1000), 1000 + PICKUP, "what nobody has said");
    }
}
