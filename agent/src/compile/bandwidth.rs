//! What pods of this node may send and receive: `BANDWIDTH`.

use std::collections::BTreeMap;

use fairlead_datapath::bandwidth::{Bandwidth, Limit};

use crate::model::Model;
use crate::wiring::Uplink;

/// Bits in a byte: limits are given in bits a second.
const BITS: u64 = 8;

/// What may come at once at any rate: a few of the largest packets that a pod hands over (64 KiB). With less, a TCP
/// connection loses parts of nearly each that it sends.
const LEAST_BURST: u64 = 4 * 65_536;

/// How far packets may be ahead of the rate, in microseconds. At least the time after which TCP sends again what was lost
/// (200 ms, `TCP_RTO_MIN` in include/net/tcp.h), or what is not used meanwhile would be lost too. At most what a queue may
/// be asked to keep.
const AHEAD: (u64, u64) = (250_000, 2_000_000);

/// Whether what leaves the node waits for its turn: where every uplink by which nodes are reached has a queue for that.
#[must_use]
pub fn is_paced(uplinks: &[Uplink]) -> bool {
    let mut primary = uplinks.iter().filter(|uplink| uplink.is_primary).peekable();
    primary.peek().is_some() && primary.all(|uplink| uplink.paces)
}

/// The limits of every attached pod that has one, by slot. `paced`: what leaves the node waits at the uplinks for its turn.
#[must_use]
pub fn compile(model: &Model, paced: bool) -> BTreeMap<u16, Bandwidth> {
    let limits = model.local().values().filter_map(|local| {
        // Another plugin's pod has what that plugin gives it.
        if local.foreign.is_some() {
            return None;
        }
        let wanted = model.object_of(local)?.bandwidth;
        let bandwidth = Bandwidth { egress: limit(wanted.egress, paced), ingress: limit(wanted.ingress, false) };
        (bandwidth != Bandwidth::NONE).then_some((local.slot, bandwidth))
    });
    limits.collect()
}

fn limit(bits: Option<u64>, paced: bool) -> Limit {
    let rate = match bits {
        Some(bits) => (bits / BITS).max(1),
        None => return Limit::NONE,
    };
    let micros = u128::from(LEAST_BURST) * 1_000_000 / u128::from(rate);
    let ahead = u64::try_from(micros).unwrap_or(u64::MAX).clamp(AHEAD.0, AHEAD.1);
    Limit { rate, ahead: u32::try_from(ahead).unwrap_or(u32::MAX), paced: u32::from(paced) }
}

/// A limit for a person.
#[must_use]
pub fn describe(direction: &str, limit: &Limit) -> String {
    let how = if limit.paced != 0 {
        "paced by fq at the uplink; to pods of this node the excess is dropped"
    } else if direction == "egress" {
        "the excess is dropped: no fq at the uplink"
    } else {
        "the excess is dropped"
    };
    format!("{direction} {} ({how})", rate(limit.rate.saturating_mul(BITS)))
}

/// Bits a second, in the largest unit of which they are a whole number.
fn rate(bits: u64) -> String {
    let units =
        [("P", 1_000_000_000_000_000), ("T", 1_000_000_000_000), ("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)];
    let unit = units.into_iter().find(|(_, unit)| bits >= *unit && bits.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bits} bit/s"), |(name, unit)| format!("{}{name}bit/s", bits / unit))
}

#[cfg(test)]
mod tests {
    use fairlead_objects::{Event, Kind, ObjectKey, read_str};

    use super::*;
    use crate::model::LocalPod;
    use crate::plan::{Op, bandwidth::State};
    use crate::wiring::Framing;

    fn uplink(is_primary: bool, paces: bool) -> Uplink {
        Uplink {
            ifindex: 2,
            name: "eth0".to_owned(),
            mtu: 1500,
            mac: None,
            addresses: Vec::new(),
            is_primary,
            has_ip: true,
            paces,
            framing: Framing::Ethernet,
            has_vlans: false,
        }
    }

    #[test]
    fn c42_what_leaves_is_paced_where_all_uplinks_to_other_nodes_have_fq() {
        let [paces, drops] = [true, false].map(|paces| uplink(true, paces));
        let other = uplink(false, false);
        for (uplinks, paced) in [
            (vec![], false),
            (vec![other.clone()], false),
            (vec![paces.clone()], true),
            (vec![paces.clone(), other], true),
            (vec![paces, drops], false),
        ] {
            assert_eq!(is_paced(&uplinks), paced, "{uplinks:?}");
        }
    }

    /// From the annotations to what is written for the programs, of which other tests show what packets meet.
    #[test]
    fn c42_annotations_become_limits_of_the_attached_pod_and_end_with_them() {
        let pod = |annotations: &str| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{namespace: a, name: web, uid: u, annotations: {{{annotations}}}}}, \
                 spec: {{nodeName: n1}}}}"
            )
        };
        let mut model = Model::new("n1");
        let take = |model: &mut Model, text: &str| {
            read_str(text).into_iter().flatten().for_each(|object| model.take(Event::Applied(object)));
        };
        let both = "kubernetes.io/egress-bandwidth: 10M, kubernetes.io/ingress-bandwidth: 1Gi";
        take(&mut model, &pod(both));
        Kind::ALL.into_iter().for_each(|kind| model.take(Event::Synced(kind)));
        assert!(compile(&model, true).is_empty(), "it is not attached");
        let local = LocalPod {
            foreign: None,
            slot: 3,
            key: ObjectKey::new("a", "web"),
            uid: "u".to_owned(),
            ips: Vec::new(),
            pod_mac: [0; 6],
            host_mac: [0; 6],
        };
        model.attach(local);
        let mut state = State::default();
        for (paced, expected) in [(true, 1), (false, 0)] {
            let plan = state.plan(&compile(&model, paced));
            let egress = Limit { rate: 1_250_000, ahead: 250_000, paced: expected };
            let ingress = Limit { rate: 134_217_728, ahead: 250_000, paced: 0 };
            assert_eq!(plan, [Op::Bandwidth { slot: 3, value: Bandwidth { egress, ingress } }]);
            plan.iter().for_each(|op| state.applied(op));
        }
        take(&mut model, &pod("kubernetes.io/egress-bandwidth: many"));
        assert_eq!(state.plan(&compile(&model, true)), [Op::Bandwidth { slot: 3, value: Bandwidth::NONE }]);
    }

    #[test]
    fn a_limit_leaves_room_for_the_largest_packets_and_for_what_tcp_waits() {
        let ahead = |bits| limit(Some(bits), false).ahead;
        assert_eq!(ahead(10_000_000), 250_000);
        assert_eq!(ahead(1_000_000_000), 250_000);
        assert_eq!(ahead(5_000_000), 419_430);
        assert_eq!(ahead(1_000), 2_000_000);
        assert_eq!(limit(Some(10_000_000), true), Limit { rate: 1_250_000, ahead: 250_000, paced: 1 });
        assert_eq!(limit(None, true), Limit::NONE);
    }

    #[test]
    fn it_is_said_in_which_way_a_limit_is_kept() {
        let said = |bits, paced| describe("egress", &limit(Some(bits), paced));
        assert_eq!(
            said(10_000_000, true),
            "egress 10Mbit/s (paced by fq at the uplink; to pods of this node the excess is dropped)"
        );
        assert_eq!(said(1_500_000, false), "egress 1500kbit/s (the excess is dropped: no fq at the uplink)");
        assert_eq!(describe("ingress", &limit(Some(8_192), false)), "ingress 8192 bit/s (the excess is dropped)");
    }
}
