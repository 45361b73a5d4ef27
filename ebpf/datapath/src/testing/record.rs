//! Runs packets, and writes them down when somebody asks for it by [`super::VARIABLE`]: `cargo xtask vm` runs them again in
//! kernels.
//!
//! What depends on chance or on the second in which it runs is found by trying: the packet also runs with other random
//! numbers and a second later.

use std::collections::{BTreeMap, HashMap};
use std::string::ToString as _;
use std::vec::Vec;

use zerocopy::FromBytes as _;

use super::flows::Flows;
use super::frame::Frame;
use super::hook::{Fate, Hook};
use super::host::Host;
use super::recording::Recorder;
use super::replay::{Entry, Record, Step};
use crate::catalog::TableId;
use crate::config::Config;
use crate::dns::DnsAnswer;
use crate::flow::FlowKey;
use crate::overlay::{self, RECEIVER, SENDER};
use crate::peer::{is_foreign, side_of};
use crate::policy::{HitKey, Hits};
use crate::service::{Affinity, AffinityKey};
use crate::svc;

/// The most that a test run takes (`bpf_test_init` in net/bpf/test_run.c): a page less what the kernel puts around it.
const LARGEST: usize = 3500;

/// `TC_ACT_UNSPEC`, `TC_ACT_OK`, `TC_ACT_SHOT` and `TC_ACT_REDIRECT` (include/uapi/linux/pkt_cls.h).
const UNSPEC: u32 = u32::MAX;
const OK: u32 = 0;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

/// Random numbers that stand for all.
const CHANCES: [u32; 4] = [0, u32::MAX, 0x5555_5555, 0x9e37_79b9];

/// How many sequences of random numbers are tried besides.
const SEQUENCES: usize = 24;

/// Of a frame that finds more.
const TOO_MANY: &str = "it finds more entries than are written down for each frame";

/// Frames of one host that are written down: a guest without hardware of its own runs some hundred in a second.
const STEPS: usize = 200;
const TOO_LONG: &str = "as many frames of its host were written down before";

/// The most entries that packets have left when a frame is written down: each frame has them all.
const ENTRIES: usize = 64;

/// What came of a packet.
#[derive(PartialEq, Eq)]
struct Outcome {
    fate: Fate,
    got: Frame,
    after: Vec<Entry>,
}

impl Outcome {
    /// Without the times, which a later packet leaves behind as well.
    fn is_like(&self, other: &Self) -> bool {
        let keys = |outcome: &Self| outcome.after.iter().map(|e| (e.table, e.key.clone())).collect::<Vec<_>>();
        self.fate == other.fate && self.got == other.got && keys(self) == keys(other)
    }

    /// Whether it differs by nothing but sets of ports in use.
    fn is_but_for_ports(&self, other: &Self) -> bool {
        let rest =
            |outcome: &Self| outcome.after.iter().filter(|e| e.table != TableId::PortSets).cloned().collect::<Vec<_>>();
        self.fate == other.fate && self.got == other.got && rest(self) == rest(other)
    }
}

impl Host {
    /// Has the programs at a hook decide about a packet, and carries out what they do to its bytes.
    pub fn run(&mut self, hook: Hook, frame: &mut Frame) -> Fate {
        let Some(mut recorder) = self.recorder.take() else { return self.decide(hook, frame) };
        let fate = recorder.run(self, hook, frame);
        self.recorder = Some(recorder);
        fate
    }
}

impl Recorder {
    /// Runs a packet and writes it down.
    fn run(&mut self, host: &mut Host, hook: Hook, frame: &mut Frame) -> Fate {
        let too_much = [(host.flows.len() > ENTRIES, TOO_MANY), (self.steps >= STEPS, TOO_LONG)];
        if let Some((_, reason)) = too_much.into_iter().find(|(is_so, _)| *is_so) {
            self.leave_out(reason);
            return host.decide(hook, frame);
        }
        let sent = frame.clone();
        let (mut tables, before, earlier) = (host.tables(), host.entries(), Memory::of(host));
        let fate = host.decide(hook, frame);
        let mut outcome = Outcome { fate, got: frame.clone(), after: host.entries() };

        let mut obstacle = obstacle(host, hook, &sent, fate);
        if before.len() > ENTRIES {
            obstacle = obstacle.or(Some(TOO_MANY));
        }
        if obstacle.is_none() {
            let later = Memory::of(host);
            let walk = core::mem::take(&mut host.walk);
            let attempts = Attempts { hook, sent: &sent, earlier: &earlier };
            if !attempts.agree(host, &outcome) {
                match attempts.narrowed(host, &before, &outcome) {
                    Some((config, narrow)) => {
                        set_config(&mut tables, &config);
                        outcome = narrow;
                    }
                    None => obstacle = Some("its outcome depends on chance"),
                }
            } else if !attempts.run(host, host.random, 1).is_like(&outcome) {
                obstacle = Some("its outcome depends on the second in which it runs");
            }
            host.walk = walk;
            later.restore(host);
        }
        match obstacle {
            Some(reason) => self.leave_out(reason),
            None => {
                let step = self.step(host, hook, sent, tables, before, outcome);
                self.write(&Record::Step(step));
                self.steps += 1;
            }
        }
        fate
    }

    /// Notes a frame that no kernel is to run, and why.
    pub(super) fn leave_out(&mut self, reason: &str) {
        let record = Record::LeftOut { test: self.test().into(), reason: reason.to_string() };
        self.write(&record);
    }

    fn step(
        &mut self,
        host: &Host,
        hook: Hook,
        sent: Frame,
        tables: Vec<Entry>,
        before: Vec<Entry>,
        outcome: Outcome,
    ) -> Step {
        let (program, ifindex) = match hook {
            Hook::FromPod(slot) => ("from_pod", side_of(host, slot)),
            Hook::ToPod(slot) => ("to_pod", side_of(host, slot)),
            Hook::FromUplink(ifindex) => ("from_uplink", ifindex),
            Hook::ToUplink(ifindex) => ("to_uplink", ifindex),
            Hook::FromOverlay => ("from_overlay", overlay::IFINDEX),
            Hook::ToOverlay => ("to_overlay", overlay::IFINDEX),
            Hook::ToServices => ("to_services", svc::IFINDEX),
        };
        // Where a guard is behind the program, what passes is decided on.
        let passed = match hook {
            Hook::FromUplink(_) | Hook::ToUplink(_) => UNSPEC,
            Hook::FromPod(_) | Hook::ToPod(_) if is_foreign(ifindex) => UNSPEC,
            Hook::FromPod(_) | Hook::ToPod(_) | Hook::FromOverlay | Hook::ToOverlay | Hook::ToServices => OK,
        };
        let Outcome { fate, mut got, after } = outcome;
        let (verdict, counted) = match fate {
            Fate::Pass | Fate::Stack => (passed, None),
            // The program sees a packet on its way out: it only says where to.
            Fate::ToNode(_) if hook == Hook::ToOverlay => {
                got.mark &= !host.config.mark;
                (passed, None)
            }
            Fate::ToPod(_) | Fate::ToNode(_) | Fate::Home | Fate::Out | Fate::Answer => (REDIRECT, None),
            Fate::Refused(reason) => (REDIRECT, Some(reason as u32)),
            Fate::Drop(reason) => (SHOT, Some(reason as u32)),
            Fate::Ignore => (SHOT, None),
        };
        if let Fate::ToNode(node) = fate {
            let v6 = sent.ether_type() == u16::from_ne_bytes([0x86, 0xdd]);
            if host.peers.nodes.get(&node).is_some_and(|hop| hop.is_tunnelled(v6)) {
                got.bytes[..12].copy_from_slice(&[RECEIVER, SENDER].concat());
            }
        }
        Step {
            test: self.test().into(),
            program: program.into(),
            ifindex,
            now: host.now,
            tables: self.differing(tables),
            before,
            after,
            sent: sent.bytes,
            mark: sent.mark,
            ingress: sent.ingress,
            segment_size: sent.segment_size,
            verdict,
            counted,
            got: got.bytes,
            got_mark: got.mark,
        }
    }
}

/// What a kernel's test run can't have, or the test sets and a kernel does not.
fn obstacle(host: &Host, hook: Hook, sent: &Frame, fate: Fate) -> Option<&'static str> {
    let flows = &host.flows;
    let limited = flows.any_capacity.get() != usize::MAX;
    if sent.vlan.is_some() {
        Some("it has a tag, and a test run's is in none of its fields")
    } else if sent.is_remade {
        Some("no socket has sent it, and a test run's is from one")
    } else if sent.partial.is_some() {
        Some("its checksum is left to the hardware, and a test run's is complete")
    } else if !matches!(host.config.pickup_until, 0 | u32::MAX) {
        Some("its settings have a second of this clock")
    } else if !matches!(host.zone.until, 0 | u32::MAX) {
        Some("its lease has a second of this clock")
    } else if hook == Hook::FromOverlay {
        Some("it has the metadata of a tunnel")
    } else if !host.sockets.is_empty() {
        Some("sockets of the node decide")
    } else if limited || flows.established_capacity.get() != usize::MAX {
        Some("a table is full")
    } else if sent.bytes.len() > LARGEST {
        Some("it is larger than what a test run takes")
    } else if sent.bytes.len() < 14 || host.linear != usize::MAX {
        Some("a test run has whole headers in one piece")
    } else if fate == Fate::Out && matches!(hook, Hook::FromPod(_) | Hook::ToServices) {
        Some("routes of the node decide")
    } else {
        None
    }
}

/// What packets have left in a host.
struct Memory {
    flows: Flows,
    affinities: HashMap<AffinityKey, Affinity>,
    hits: BTreeMap<HitKey, Hits>,
    host_flows: u32,
    answers: [u64; DnsAnswer::ALL.len()],
}

impl Memory {
    fn of(host: &Host) -> Self {
        let (affinities, hits) = (host.services.affinities.borrow().clone(), host.hits.borrow().clone());
        let answers = host.answers.get();
        Self { flows: host.flows.copy(), affinities, hits, host_flows: host.host_flows.load(), answers }
    }

    fn copy(&self) -> Self {
        let Self { flows, affinities, hits, host_flows, answers } = self;
        let (affinities, hits) = (affinities.clone(), hits.clone());
        Self { flows: flows.copy(), affinities, hits, host_flows: *host_flows, answers: *answers }
    }

    fn restore(self, host: &mut Host) {
        host.flows = self.flows;
        host.services.affinities.replace(self.affinities);
        host.hits.replace(self.hits);
        host.host_flows.store(self.host_flows);
        host.answers.set(self.answers);
        // What is tried again and again would be too often.
        host.turns.take();
    }
}

/// The same packet again and again, each time as if it were the first.
struct Attempts<'a> {
    hook: Hook,
    sent: &'a Frame,
    earlier: &'a Memory,
}

impl Attempts<'_> {
    /// Runs it with a random number, or different ones, some seconds later.
    fn run(&self, host: &mut Host, random: Option<u32>, later: u32) -> Outcome {
        self.earlier.copy().restore(host);
        let random = core::mem::replace(&mut host.random, random);
        host.now += later;
        let mut got = self.sent.clone();
        let fate = host.decide(self.hook, &mut got);
        let outcome = Outcome { fate, got, after: host.entries() };
        host.now -= later;
        host.random = random;
        outcome
    }

    /// Whether any random numbers make this of it.
    fn agree(&self, host: &mut Host, outcome: &Outcome) -> bool {
        let chance = host.chance.get();
        let first = self.run(host, None, 0) == *outcome;
        let asked = host.chance.get() != chance;
        // One that comes twice may hide what two that differ show, and the other way round.
        let others = CHANCES.map(Some).into_iter().chain([None; SEQUENCES]);
        let agree = first && (!asked || others.into_iter().all(|random| self.run(host, random, 0) == *outcome));
        host.chance.set(chance);
        agree
    }

    /// Settings with which the only source port to choose is the one that was chosen, if that is all that chance decided, and
    /// the outcome with them: where there is one port it is kept which are in use.
    fn narrowed(&self, host: &mut Host, before: &[Entry], outcome: &Outcome) -> Option<(Config, Outcome)> {
        let config = host.config;
        let new = outcome.after.iter().filter(|entry| entry.table == TableId::OtherFlows && !before.contains(entry));
        let keys = new.filter_map(|entry| FlowKey::read_from_bytes(&entry.key).ok());
        let ports = keys.flat_map(|key| [key.a_port, key.b_port]).filter(|port| config.is_snat_port(*port));
        let found =
            ports.map(|port| Config { snat_first: port.number(), snat_count: 1, ..config }).find_map(|narrow| {
                host.config = narrow;
                let chance = host.chance.get();
                let again = self.run(host, None, 0);
                host.chance.set(chance);
                (again.is_but_for_ports(outcome) && self.agree(host, &again)).then_some((narrow, again))
            });
        host.config = config;
        found
    }
}

fn set_config(tables: &mut [Entry], config: &Config) {
    let entry = Entry::new(TableId::Settings, &0_u32, config);
    tables.iter_mut().filter(|other| other.table == entry.table).for_each(|other| *other = entry.clone());
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::{format, fs, string::String};

    use super::super::recording::VARIABLE;

    /// Each packet is tried many times for what chance has to do with it, and nothing of that may be seen.
    #[test]
    fn tests_that_are_recorded_pass_as_they_do_otherwise() {
        let file = std::env::temp_dir().join(format!("fairlead-frames-{}", std::process::id()));
        let tests = ["dns", "hits", "lifecycle", "masquerade", "outside"].map(|room| format!("walk::tests::{room}::"));
        let mut command = Command::new(std::env::current_exe().expect("it runs"));
        let said = command.args(tests).env(VARIABLE, &file).output().expect("it can be started");
        let recorded = fs::metadata(&file).map_or(0, |meta| meta.len());
        drop(fs::remove_file(&file));
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout).replace('\n', "\n    "));
        assert!(recorded > 0, "something is recorded");
    }
}
