//! Many flows at a time, in any order: answers get back to whoever asked, as the answer to what it asked, and no two
//! flows look the same to a responder.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// What a client aims at: two services that share backends, one with itself, the node, another node and the world; and
/// all of those directly.
fn targets(v6: bool) -> [(IpAddr, u16); 9] {
    [
        (Node::vip(v6), 80),
        (Node::other_vip(v6), 80),
        (Node::other_vip(v6), 81),
        (Node::vip(v6), 443),
        (Node::pod(0, v6), 8080),
        (Node::pod(1, v6), 8080),
        (Node::far_pod(v6), 8080),
        (Node::world(v6), 8080),
        (Node::address(v6), 8080),
    ]
}

/// Ports of clients: some are ones that a translated source may get.
const PORTS: [u16; 4] = [CLIENT, Config::SNAT_FIRST, Config::SNAT_FIRST + 1, Config::SNAT_FIRST + 2];

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A client sends: pod, target, port, whether TCP.
    Ask(u16, usize, usize, bool),
    /// The responder of one of the flows answers.
    Answer(prop::sample::Index),
    /// A backend serves no more, or again.
    Serve(prop::sample::Index, bool),
    /// Policy of a pod moves, and still allows everything.
    Police(u16),
    /// A second passes.
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..3_u16, 0..9_usize, 0..PORTS.len(), any::<bool>()).prop_map(|(a, b, c, d)| Step::Ask(a, b, c, d)),
        8 => any::<prop::sample::Index>().prop_map(Step::Answer),
        1 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, serves)| Step::Serve(which, serves)),
        1 => (0..3_u16).prop_map(Step::Police),
        1 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 0..60)
}

/// A flow, by what its opener sends.
type Flow = (u8, (IpAddr, u16), (IpAddr, u16));

/// What its responder saw last, and whether it has answered.
#[derive(Debug, Clone)]
struct Met {
    landed: Landed,
    seen: Seen,
    answered: bool,
    opener: u16,
    /// When a packet of it was seen last.
    at: u32,
}

struct World {
    node: Node,
    send: Send,
    v6: bool,
    ids: Vec<u32>,
    flows: Vec<Flow>,
    met: HashMap<Flow, Met>,
}

impl World {
    fn new(v6: bool, partial: bool, ports: u16) -> Self {
        let mut node = Node::new();
        // Few, so that they run out and collide.
        node.host.config.snat_count = ports;
        let [vip, other, other_port, outside, own, pod, far, world, host] = targets(v6);
        let mut ids = Vec::new();
        for proto in [TCP, UDP] {
            ids.extend(node.service(vip, proto, &[own, pod, far]));
            ids.extend(node.service(other, proto, &[own, pod]));
            ids.extend(node.service(other_port, proto, &[pod, host]));
            ids.extend(node.service(outside, proto, &[world, host]));
        }
        Self { node, send: Send { partial }, v6, ids, flows: Vec::new(), met: HashMap::new() }
    }

    fn ask(&mut self, slot: u16, target: usize, port: usize, is_tcp: bool) -> Result<(), TestCaseError> {
        let (from, to) = ((Node::pod(slot, self.v6), PORTS[port]), targets(self.v6)[target]);
        let flow = (if is_tcp { TCP } else { UDP }, from, to);
        let begun = self.met.get(&flow).is_some_and(|met| met.answered);
        let sent = match (is_tcp, begun) {
            (false, _) => udp(from, to),
            (true, false) => tcp(from, to, SYN),
            (true, true) => tcp(from, to, ACK),
        };
        let mut frame = self.send.frame(&sent);
        let landed = self.node.pod_sends(slot, &mut frame);
        let nobody_serves = matches!(landed, Landed::Dropped(DropReason::Race | DropReason::FlowRace));
        let no_port = matches!(landed, Landed::Dropped(DropReason::NoSourcePort | DropReason::PortShare));
        if nobody_serves || no_port {
            self.met.remove(&flow);
            self.flows.retain(|known| *known != flow);
            return Ok(());
        }
        prop_assert!(!matches!(landed, Landed::Dropped(_) | Landed::Refused(_) | Landed::Ignored), "{:?}", landed);
        let seen = Seen::of(&frame).map_err(TestCaseError::fail)?;
        let now = self.node.host.now;
        let before = self.met.insert(flow, Met { landed, seen: seen.clone(), answered: begun, opener: slot, at: now });
        if let (true, Some(before)) = (begun && is_tcp, before) {
            prop_assert_eq!(before.seen.ends(), seen.ends(), "a connection has moved");
        }
        if !self.flows.contains(&flow) {
            self.flows.push(flow);
        }
        // A question that was answered gives its port up when there is none left.
        let gives_up = |other: &Flow, met: &Met| other.0 == UDP && met.answered && now > met.at;
        self.met.retain(|other, met| {
            *other == flow || other.0 != flow.0 || met.seen.ends() != seen.ends() || !gives_up(other, met)
        });
        let met = &self.met;
        self.flows.retain(|known| met.contains_key(known));
        for (other, met) in &self.met {
            let same = met.seen.ends() == seen.ends() && other.0 == flow.0;
            prop_assert!(!same || *other == flow, "{:?} and {:?} look the same", other, flow);
        }
        Ok(())
    }

    fn answer(&mut self, which: prop::sample::Index) -> Result<(), TestCaseError> {
        if self.flows.is_empty() {
            return Ok(());
        }
        let flow = *which.get(&self.flows);
        let Some(met) = self.met.get_mut(&flow) else { return Ok(()) };
        let flags = if met.answered { ACK } else { SYN_ACK };
        met.answered = true;
        met.at = self.node.host.now;
        let mut frame = self.send.frame(&answer(&met.seen, flags));
        let opener = met.opener;
        let landed = match met.landed {
            Landed::Pod(slot) => self.node.pod_sends(slot, &mut frame),
            Landed::Node(_) | Landed::Outside | Landed::Out => self.node.arrives(&mut frame),
            Landed::Host => self.node.sends(&mut frame),
            other => return Err(TestCaseError::fail(std::format!("{other:?}"))),
        };
        prop_assert_eq!(landed, Landed::Pod(opener), "the answer to {:?}", flow);
        let seen = Seen::of(&frame).map_err(TestCaseError::fail)?;
        prop_assert_eq!(seen.ends(), (flow.2, flow.1));
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Ask(slot, target, port, is_tcp) => self.ask(slot, target, port, is_tcp)?,
            Step::Answer(which) => self.answer(which)?,
            Step::Serve(which, serves) => {
                let id = *which.get(&self.ids);
                if serves { self.node.serve(id) } else { self.node.stop_serving(id) }
            }
            Step::Police(slot) => self.node.police(slot, crate::policy::ALLOW_ALL, crate::policy::ALLOW_ALL),
            Step::Wait => self.node.host.now += 1,
        }
        let seed = self.node.host.config.seed;
        prop_assert_eq!(self.node.host.flows.counts(), self.node.host.flows.recounted(seed));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn s48_s49_every_answer_gets_back_and_no_two_flows_look_the_same(
        v6: bool,
        partial: bool,
        ports in 1..40_u16,
        steps in steps(),
    ) {
        let mut world = World::new(v6, partial, ports);
        for step in steps {
            world.step(step)?;
        }
    }
}
