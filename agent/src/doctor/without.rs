//! What a node does without, and what holds there: no faults, but promises that are smaller than elsewhere.

use serde::Serialize;

use crate::parts::Parts;

use super::facts::{Facts, Keeper, Kernel, UplinkFacts};

/// Something that this node does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Without {
    /// What.
    pub what: String,
    /// What holds without it.
    pub holds: &'static str,
}

/// What a node does without.
#[must_use]
pub fn without(facts: &Facts) -> Vec<Without> {
    let Kernel { version, ends_sockets, .. } = &facts.kernel;
    let mut lacks = Vec::new();
    match facts.agent.as_ref().map_or(Parts::All, |agent| agent.parts) {
        Parts::All => {}
        Parts::Proxy => lacks.push(Without {
            what: "Fairlead's network and NetworkPolicy (parts: proxy)".to_owned(),
            holds: "Services are served for pods that another plugin wires; no policy is enforced; pods' sources are not \
                    checked before they are known, nor is there a bandwidth limit",
        }),
        Parts::Policy => lacks.push(Without {
            what: "Fairlead's network and Services (parts: policy)".to_owned(),
            holds: "policy applies to a pod that another plugin has wired once its object has an address and its interface \
                    is found, about a second after it starts; until then it is open. Status names pods that are not found",
        }),
    }
    if version.is_some_and(|version| version < (6, 6)) {
        lacks.push(Without {
            what: "tcx (Linux 6.6)".to_owned(),
            holds: "programs are clsact filters of priority 50: one that somebody attaches with a lower priority sees packets \
                    first and stays there, and deleting the qdisc takes program and guard until the agent has looked, 10 s at \
                    most",
        });
    }
    // Before there is an agent nobody has installed anything.
    if facts.keeper == Keeper::Absent && facts.agent.is_some() {
        lacks.push(Without {
            what: "a keeper (fairlead install --keep, the container keep of the DaemonSet)".to_owned(),
            holds: "an agent that may mount puts back the bpf file system itself; without that permission, if somebody unmounts it, \
                    the next agent begins with empty tables once `fairlead install` has run again. The CNI plugin stays removed",
        });
    }
    if *ends_sockets == Some(false) {
        lacks.push(Without {
            what: "SOCK_DESTROY (CONFIG_INET_DIAG_DESTROY)".to_owned(),
            holds: "connections of the node's own processes to pods that are gone end when they time out, connected UDP \
                    sockets when their process closes them; pods' own are reset by packets",
        });
    }
    let unpaced: Vec<&str> = facts.uplinks.iter().flatten().filter(|uplink| !uplink.paces).map(name).collect();
    if !unpaced.is_empty() {
        lacks.push(Without {
            what: format!("fq as root qdisc at {}", unpaced.join(", ")),
            holds: "bandwidth limits of pods hold, but what leaves is not spaced: what exceeds them is dropped",
        });
    }
    lacks
}

fn name(uplink: &UplinkFacts) -> &str {
    &uplink.name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_what_it_does_without_and_nothing_else() {
        let uplink = |name: &str, paces| UplinkFacts { name: name.into(), paces, ..UplinkFacts::default() };
        let kernel = |version, ends_sockets| Kernel { version, ends_sockets, ..Kernel::default() };
        let facts = |kernel, uplinks| Facts { kernel, uplinks: Some(uplinks), ..Facts::default() };
        let all = facts(kernel(Some((6, 6)), Some(true)), vec![uplink("eth0", true)]);
        assert_eq!(without(&all), []);
        assert_eq!(without(&Facts::default()), [], "what could not be looked at is not missing");
        let none = facts(kernel(Some((6, 1)), Some(false)), vec![uplink("eth0", false), uplink("eth1", true)]);
        let lacks = without(&none);
        let [tcx, sockets, fq] = &lacks[..] else { panic!("{lacks:?}") };
        assert!(tcx.what.contains("tcx") && sockets.what.contains("SOCK_DESTROY"));
        assert_eq!(fq.what, "fq as root qdisc at eth0");
    }

    #[test]
    fn a_node_without_a_keeper_is_told_once_there_is_an_agent() {
        let facts = |keeper, agent| Facts { keeper, agent, ..Facts::default() };
        let agent = || Some(crate::doctor::facts::Agent::default());
        assert_eq!(without(&facts(Keeper::Absent, None)), []);
        assert_eq!(without(&facts(Keeper::Runs(String::new()), agent())), []);
        let lacks = without(&facts(Keeper::Absent, agent()));
        assert!(matches!(&lacks[..], [keeper] if keeper.what.contains("fairlead install --keep")), "{lacks:?}");
    }
}
