//! Both states asked about two ends.

use std::collections::BTreeSet;

use fairlead_objects::{Action, PolicyPort, PortMatch, Protocol, Tier};

use super::ends::{Declared, End, Ends};
use super::sets::OfPolicy;
use super::{Change, Family, Traffic};
use crate::compile::policy::Direction;

/// Two ends in a family, the first of which opens a flow to the second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) ends: &'a Ends<'a>,
    pub(super) from: &'a End<'a>,
    pub(super) to: &'a End<'a>,
    pub(super) family: Family,
}

/// Protocols, the last of which stands for those without ports.
const PROTOCOLS: [Option<Protocol>; 4] = [Some(Protocol::Tcp), Some(Protocol::Udp), Some(Protocol::Sctp), None];

/// A rule that has the other end among its peers, or may have it.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    tier: Tier,
    action: Action,
    rule: &'a OfPolicy<'a>,
    /// Whether the other end is one of its peers.
    peer: bool,
}

/// What a state asks of a flow at one of its ends.
#[derive(Debug)]
struct Side<'a> {
    direction: Direction,
    own: &'a End<'a>,
    other: &'a End<'a>,
    is_closed: bool,
    isolated: bool,
    rules: Vec<Asked<'a>>,
}

impl<'a> Pair<'a> {
    /// What the change opens and closes.
    pub(super) fn change(self) -> Change {
        let states = [0, 1].map(|state| {
            [
                self.side(state, Direction::Egress, self.from, self.to),
                self.side(state, Direction::Ingress, self.to, self.from),
            ]
        });
        let mut change = Change::default();
        for protocol in PROTOCOLS {
            let mut starts: BTreeSet<u32> = BTreeSet::from([u32::from(protocol.is_some())]);
            if let Some(protocol) = protocol {
                states.iter().flatten().for_each(|side| side.edges(protocol, &mut starts));
            }
            let ends = starts.iter().skip(1).map(|next| next - 1).chain([protocol.map_or(0, |_| 65_535)]);
            for (first, last) in starts.iter().zip(ends) {
                let [before, after] =
                    [0, 1].map(|state: usize| states[state].iter().all(|side| side.allows(protocol, *first as u16)));
                if before != after {
                    let list: &mut Vec<Traffic> = &mut change[usize::from(before)];
                    match list.last_mut() {
                        Some(other) if other.protocol == protocol && u32::from(other.last) + 1 == *first => {
                            other.last = last as u16;
                        }
                        _ => list.push(Traffic { protocol, first: *first as u16, last: last as u16 }),
                    }
                }
            }
        }
        change
    }

    fn side(self, state: usize, direction: Direction, own: &'a End<'a>, other: &'a End<'a>) -> Side<'a> {
        let set = &self.ends.sets.sets[own.sets[state][usize::from(direction == Direction::Egress)]];
        let met = other.met[self.family as usize].as_ref();
        let rules = set.rules.iter().filter_map(|(tier, action, number)| {
            let rule = &self.ends.sets.rules[*number];
            let peer = met.is_some_and(|met| met.contains(number));
            let may_be =
                other.is_unknown && *action != Action::Accept && *tier != Tier::NetworkPolicy && rule.names_pods();
            (peer || may_be).then_some(Asked { tier: *tier, action: *action, rule, peer })
        });
        Side { direction, own, other, is_closed: set.is_closed, isolated: set.isolated, rules: rules.collect() }
    }
}

impl Side<'_> {
    /// The ports at which a rule begins or is at its end.
    fn edges(&self, protocol: Protocol, edges: &mut BTreeSet<u32>) {
        let ports = self.rules.iter().flat_map(|asked| &asked.rule.rule.ports);
        for PolicyPort { port, .. } in ports.filter(|port| port.protocol == protocol) {
            let mut add = |first: u16, last: u16| {
                edges.extend(
                    [u32::from(first), u32::from(last) + 1].into_iter().filter(|edge| (1..=65_535).contains(edge)),
                );
            };
            match port {
                PortMatch::Range(first, last) => add(*first, *last),
                PortMatch::Named(name) => {
                    let named = self.declared().iter().filter(|(own, of, _)| own == name && *of == protocol);
                    named.for_each(|(.., number)| add(*number, *number));
                }
                PortMatch::Any | PortMatch::Nothing => {}
            }
        }
    }

    /// Whose names of ports count: those of the end that is connected to.
    fn declared(&self) -> &BTreeSet<Declared> {
        match self.direction {
            Direction::Ingress => &self.own.declared,
            Direction::Egress => &self.other.declared,
        }
    }

    fn allows(&self, protocol: Option<Protocol>, port: u16) -> bool {
        if self.is_closed {
            return false;
        }
        match self.tier(Tier::Admin, protocol, port) {
            Some(Action::Accept) => return true,
            Some(Action::Deny) => return false,
            Some(Action::Pass) | None => {}
        }
        if self.isolated {
            return self.tier(Tier::NetworkPolicy, protocol, port).is_some();
        }
        self.tier(Tier::Baseline, protocol, port) != Some(Action::Deny)
    }

    /// What the first rule of a tier does that matches.
    fn tier(&self, tier: Tier, protocol: Option<Protocol>, port: u16) -> Option<Action> {
        self.rules.iter().filter(|asked| asked.tier == tier).find_map(|asked| {
            let matches = self.has_port(asked, protocol, port);
            if asked.peer && matches {
                return Some(asked.action);
            }
            // A pod that nobody can place may be meant, by whatever name its ports have.
            let may_be = self.other.is_unknown && asked.action != Action::Accept && asked.rule.names_pods();
            let is_named =
                |port: &PolicyPort| matches!(port.port, PortMatch::Named(_)) && Some(port.protocol) == protocol;
            let may_have = self.direction == Direction::Egress && asked.rule.rule.ports.iter().any(is_named);
            (may_be && (matches || may_have)).then_some(Action::Deny)
        })
    }

    fn has_port(&self, asked: &Asked<'_>, protocol: Option<Protocol>, number: u16) -> bool {
        let ports = &asked.rule.rule.ports;
        ports.is_empty()
            || ports.iter().filter(|port| Some(port.protocol) == protocol).any(|port| match &port.port {
                PortMatch::Any => true,
                PortMatch::Nothing => false,
                PortMatch::Range(first, last) => (*first..=*last).contains(&number),
                PortMatch::Named(name) => self.declared().contains(&(name.clone(), port.protocol, number)),
            })
    }
}
