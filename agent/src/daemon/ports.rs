//! Who holds the source ports of destinations for which there are none left. The tables of flows are counted for it with the
//! sweep, and only if flows were refused since the last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::drop::DropReason;
use fairlead_datapath::flow::{Destination, Flow, FlowFlags, FlowKey};
use fairlead_datapath::peer::NO_SLOT;
use fairlead_objects::{Kind, ObjectKey};
use tracing::warn;
use zerocopy::FromBytes as _;

use crate::bpf::{BpfError, Tables};
use crate::masquerade::PortRange;
use crate::state::Shared;

/// What the status calls it.
const TOPIC: &str = "source ports";

/// The reason of its Events.
const REASON: &str = "SourcePortsShort";

/// How long it stays in the status after the last flow was refused.
const QUIET: Duration = Duration::from_secs(60);

/// Destinations, and holders of each, that are named.
const NAMED: usize = 5;

/// Who holds a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// This node's pod with this slot.
    Pod(u16),
    /// The node itself.
    Node,
    /// Clients outside.
    Outside,
}

impl Holder {
    const fn of(flow: &Flow) -> Self {
        match flow.opener.slot {
            NO_SLOT if flow.is(FlowFlags::FROM_NODE) => Self::Node,
            NO_SLOT => Self::Outside,
            slot => Self::Pod(slot),
        }
    }
}

/// Counts who holds ports of the destinations that are crowded.
#[derive(Debug)]
pub(super) struct Census(HashMap<Destination, BTreeMap<Holder, u64>>);

impl Census {
    /// Of these destinations.
    pub(super) fn of(crowded: impl IntoIterator<Item = Destination>) -> Self {
        Self(crowded.into_iter().map(|place| (place, BTreeMap::new())).collect())
    }

    /// Counts an entry of the tables of flows.
    pub(super) fn count(&mut self, key: &FlowKey, flow: &Flow) {
        if !flow.is(FlowFlags::PORT) {
            return;
        }
        let mut place = Destination::default();
        place.set(key, flow.is(FlowFlags::OPENER_IS_A));
        if let Some(holders) = self.0.get_mut(&place) {
            *holders.entry(Holder::of(flow)).or_default() += 1;
        }
    }

    /// The destinations of which half of so many ports are in use, which is what it takes for a flow to be refused: most used
    /// first, and of each who holds most first.
    pub(super) fn short(self, all: u16) -> Vec<Short> {
        let mut short: Vec<_> = self.0.into_iter().map(Short::new).collect();
        short.retain(|short| short.in_use >= u64::from(all / 2));
        short.sort_unstable_by_key(|short| (std::cmp::Reverse(short.in_use), short.place()));
        short.truncate(NAMED);
        short
    }
}

/// A destination that has few ports left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Short {
    destination: Destination,
    in_use: u64,
    holders: Vec<(Holder, u64)>,
}

impl Short {
    fn new((destination, holders): (Destination, BTreeMap<Holder, u64>)) -> Self {
        let mut holders: Vec<_> = holders.into_iter().collect();
        holders.sort_unstable_by_key(|(holder, count)| (std::cmp::Reverse(*count), *holder));
        Self { destination, in_use: holders.iter().map(|(_, count)| count).sum(), holders }
    }

    /// Where to, and as whom.
    fn place(&self) -> String {
        let Destination { dst, src, port, proto, pad: _ } = self.destination;
        let proto = match proto {
            6 => "TCP".to_owned(),
            17 => "UDP".to_owned(),
            1 | 58 => "ICMP".to_owned(),
            other => format!("protocol {other}"),
        };
        let to = std::net::SocketAddr::new(IpAddr::from(dst), port.number());
        format!("{to}/{proto} from {}", IpAddr::from(src))
    }

    /// What is so, in one sentence.
    fn text(&self, all: u16, name: impl Fn(Holder) -> String) -> String {
        let mut text = format!("{}: {} of {all} source ports in use", self.place(), self.in_use);
        for (n, (holder, count)) in self.holders.iter().take(NAMED).enumerate() {
            let before = if n == 0 { ", by " } else { ", " };
            let _infallible = write!(text, "{before}{} ({count})", name(*holder));
        }
        if let more @ 1.. = self.holders.len().saturating_sub(NAMED) {
            let _infallible = write!(text, " and {more} more");
        }
        text
    }
}

/// What to do about it.
const REMEDY: &str = "new flows are refused (port_share, no_source_port): make those clients reuse connections, \
    spread them over more addresses or ports of the destination, or widen masquerade.portRange";

/// What was found and said so far.
#[derive(Debug)]
pub(super) struct Ports {
    refused: u64,
    last: Option<Instant>,
    said: BTreeSet<(String, Option<Holder>)>,
}

impl Ports {
    /// Begins with what was refused before.
    pub(super) fn new(tables: &Tables) -> Self {
        Self { refused: refused(tables).unwrap_or_default(), last: None, said: BTreeSet::new() }
    }

    /// A census for the sweep to take, if flows were refused since the last time.
    pub(super) fn begin(&mut self, tables: &Tables) -> Result<Option<Census>, BpfError> {
        let refused = refused(tables)?;
        if std::mem::replace(&mut self.refused, refused) == refused {
            return Ok(None);
        }
        let mut crowded = Vec::new();
        tables.map(TableId::PortSets)?.for_each(|key, _| crowded.extend(Destination::read_from_bytes(key)))?;
        Ok(Some(Census::of(crowded)))
    }

    /// Says what a census found: in the status for as long as flows are refused, and as an Event on the Node and on the pod that
    /// holds most once for each destination.
    pub(super) fn tell(&mut self, census: Option<Census>, ports: PortRange, shared: &Shared) {
        let short = census.map(|census| census.short(ports.count())).unwrap_or_default();
        if short.is_empty() {
            if self.last.is_some_and(|last| last.elapsed() >= QUIET) {
                (self.last, self.said) = (None, BTreeSet::new());
                shared.warn(TOPIC, None);
            }
            return;
        }
        self.last = Some(Instant::now());
        let pods: HashMap<u16, (ObjectKey, String)> = {
            let model = shared.model();
            let uid = |local| model.object_of(local).map_or_else(String::new, |pod| pod.uid.clone());
            model.local().values().map(|local| (local.slot, (local.key.clone(), uid(local)))).collect()
        };
        let name = |holder| match holder {
            Holder::Pod(slot) => {
                pods.get(&slot).map_or_else(|| "a pod that is gone".to_owned(), |(key, _)| format!("pod {key}"))
            }
            Holder::Node => "the node itself".to_owned(),
            Holder::Outside => "clients outside".to_owned(),
        };
        let texts: Vec<_> = short.iter().map(|short| short.text(ports.count(), name)).collect();
        let node = ObjectKey::cluster(shared.model().node_name());
        for (short, text) in short.iter().zip(&texts) {
            let most = short.holders.first().map(|(holder, _)| *holder);
            if !self.said.insert((short.place(), most)) {
                continue;
            }
            let note = format!("{text}; {REMEDY}");
            warn!("{note}");
            shared.events.warn(Kind::Node, &node, "", REASON, note.clone());
            if let Some(Holder::Pod(slot)) = most
                && let Some((key, uid)) = pods.get(&slot)
            {
                shared.events.warn(Kind::Pod, key, uid, REASON, note);
            }
        }
        // Numbers change with each sweep: in the log that would be one line each.
        shared.note(|progress| drop(progress.warnings.insert(TOPIC, format!("{}; {REMEDY}", texts.join("; ")))));
    }
}

/// Flows that got no source port so far.
fn refused(tables: &Tables) -> Result<u64, BpfError> {
    let drops = tables.map(TableId::Drops)?;
    let mut sum = 0;
    for reason in [DropReason::PortShare, DropReason::NoSourcePort] {
        let values = drops.get(&(reason as u32).to_ne_bytes())?.unwrap_or_default();
        sum += <[u64]>::ref_from_bytes(&values).map_or(0, |values| values.iter().sum());
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use fairlead_datapath::flow::End;
    use fairlead_datapath::peer::NO_NODE;
    use fairlead_datapath::{Addr, Tuple, WirePort};
    use proptest::prelude::*;

    use super::*;

    fn tuple(dst: u8, sport: u16) -> Tuple {
        let addr = |ip: [u8; 4]| Addr::from(IpAddr::from(ip));
        // Below and above the destination, so that either end is the key's first.
        let src = addr([if sport.is_multiple_of(2) { 10 } else { 203 }, 0, 0, 1]);
        Tuple {
            src,
            dst: addr([192, 0, 2, dst]),
            sport: WirePort::new(sport),
            dport: WirePort::new(443),
            ..Tuple::NONE
        }
    }

    fn entry(tuple: &Tuple, slot: u16, flags: u32) -> (FlowKey, Flow) {
        let (key, from_a) = FlowKey::of(tuple, 6);
        let flags = flags | if from_a { FlowFlags::OPENER_IS_A } else { 0 };
        (key, Flow { opener: End { slot, node: NO_NODE }, flags, ..Flow::new() })
    }

    fn place(tuple: &Tuple) -> Destination {
        let (key, from_a) = FlowKey::of(tuple, 6);
        let mut place = Destination::default();
        place.set(&key, from_a);
        place
    }

    #[test]
    fn it_is_said_where_to_and_by_whom() {
        let mut census = Census::of([place(&tuple(1, 2)), place(&tuple(2, 2))]);
        for (n, slot) in [7, 7, NO_SLOT, 8, 7, 8].into_iter().enumerate() {
            let (key, flow) = entry(&tuple(1, 2 * n as u16), slot, FlowFlags::PORT | FlowFlags::FAR);
            census.count(&key, &flow);
        }
        let short = census.short(12);
        let name = |holder| format!("{holder:?}");
        let texts: Vec<_> = short.iter().map(|short| short.text(12, name)).collect();
        let all =
            "192.0.2.1:443/TCP from 10.0.0.1: 6 of 12 source ports in use, by Pod(7) (3), Pod(8) (2), Outside (1)";
        assert_eq!(texts, [all]);
    }

    proptest! {
        #[test]
        fn a_census_counts_as_a_plain_list_does(
            flows in prop::collection::vec((0..4_u8, 0..2000_u16, 0..4_u16, any::<bool>(), any::<bool>()), 0..300),
            all in 1024..2000_u16,
        ) {
            // Destination 3 is not crowded.
            let crowded: Vec<_> = (0..3).flat_map(|dst| [place(&tuple(dst, 0)), place(&tuple(dst, 1))]).collect();
            let mut census = Census::of(crowded.iter().copied());
            let mut plain = Vec::new();
            for (dst, sport, slot, port, of_node) in flows {
                let slot = if slot == 3 { NO_SLOT } else { slot };
                let flags = if port { FlowFlags::PORT } else { 0 } | if of_node { FlowFlags::FROM_NODE } else { 0 };
                let (key, flow) = entry(&tuple(dst, sport), slot, flags);
                census.count(&key, &flow);
                let holder = if slot != NO_SLOT { Holder::Pod(slot) } else if of_node { Holder::Node } else { Holder::Outside };
                plain.extend(port.then_some((place(&tuple(dst, sport)), holder)));
            }
            let all = all / 32;
            let found = census.short(all);
            let of = |place: &Destination| plain.iter().filter(|(other, _)| other == place).count() as u64;
            let wanted = crowded.iter().filter(|place| of(place) >= u64::from(all / 2)).count().min(NAMED);
            prop_assert_eq!(found.len(), wanted);
            prop_assert!(found.is_sorted_by_key(|short| std::cmp::Reverse(short.in_use)));
            for short in found {
                prop_assert_eq!(short.in_use, of(&short.destination));
                for (holder, count) in short.holders {
                    let counted = plain.iter().filter(|one| **one == (short.destination, holder)).count() as u64;
                    prop_assert_eq!(count, counted);
                }
            }
        }
    }
}
