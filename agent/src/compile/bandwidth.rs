//! What pods of this node may send and receive: `BANDWIDTH`.

use std::collections::BTreeMap;

use fairlead_datapath::bandwidth::{Bandwidth, Limit};

use crate::model::Model;

/// Bits in a byte: limits are given in bits a second.
const BITS: u64 = 8;

/// What may come at once at any rate: a few of the largest packets that a pod hands over (64 KiB). With less, a TCP
/// connection loses parts of nearly each that it sends.
const LEAST_BURST: u64 = 4 * 65_536;

/// How far packets may be ahead of the rate, in microseconds. At least the time after which TCP sends again what was lost
/// (200 ms, `TCP_RTO_MIN` in include/net/tcp.h), or what is not used meanwhile would be lost too. At most what a queue may
/// be asked to keep.
const AHEAD: (u64, u64) = (250_000, 2_000_000);

/// The limits of every attached pod that has one, by slot. `paced`: what leaves the node waits at the uplinks for its turn.
#[must_use]
pub fn compile(model: &Model, paced: bool) -> BTreeMap<u16, Bandwidth> {
    let limits = model.local().values().filter_map(|local| {
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
    use super::*;

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
