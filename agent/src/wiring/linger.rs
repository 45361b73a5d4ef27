//! Uplinks that have no address and no route for a moment, as while a lease is renewed or an interface goes down and up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Uplink;

/// So long an uplink without IP stays what it was: taken off, its programs would be missed by connections that go on.
const GRACE: Duration = Duration::from_secs(60);

/// Since when uplinks have had no IP, by the index of the interface.
#[derive(Debug, Default)]
pub struct Lingering(BTreeMap<u32, Instant>);

impl Lingering {
    /// The uplinks: what has IP now, and what had it a short time ago and could have it again.
    pub fn uplinks(&mut self, before: &[Uplink], found: Vec<Uplink>, now: Instant) -> Vec<Uplink> {
        let mut uplinks = Vec::new();
        let mut without = BTreeMap::new();
        for device in found {
            if device.has_ip {
                uplinks.push(device);
                continue;
            }
            let same = |was: &&Uplink| was.ifindex == device.ifindex && was.name == device.name;
            let Some(was) = before.iter().find(same) else { continue };
            let since = self.0.get(&device.ifindex).copied().unwrap_or(now);
            if now.saturating_duration_since(since) < GRACE {
                without.insert(device.ifindex, since);
                uplinks.push(was.clone());
            }
        }
        self.0 = without;
        uplinks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wiring::Framing;

    fn device(ifindex: u32, has_ip: bool) -> Uplink {
        let addresses = if has_ip { vec![("192.0.2.1".parse().unwrap(), 24)] } else { vec![] };
        let (name, mac) = (format!("eth{ifindex}"), None);
        Uplink {
            ifindex,
            name,
            mtu: 1500,
            mac,
            addresses,
            is_primary: has_ip,
            has_ip,
            paces: false,
            framing: Framing::Ethernet,
            has_vlans: false,
        }
    }

    #[test]
    fn s73_an_uplink_that_loses_its_address_for_a_moment_stays_what_it_was() {
        let (mut lingering, start) = (Lingering::default(), Instant::now());
        let up = lingering.uplinks(&[], vec![device(2, true), device(3, false)], start);
        assert_eq!(up, [device(2, true)], "what never had one is none");
        let mut before = up;
        for seconds in [1, 30, 60] {
            before = lingering.uplinks(&before, vec![device(2, false)], start + Duration::from_secs(seconds));
            assert_eq!(before, [device(2, true)], "after {seconds} s");
        }
        assert_eq!(lingering.uplinks(&before, vec![device(2, false)], start + Duration::from_secs(61)), []);
        assert_eq!(lingering.uplinks(&[], vec![device(2, false)], start + Duration::from_secs(62)), []);
    }

    #[test]
    fn s73_what_is_gone_or_came_back_begins_anew() {
        let (mut lingering, start) = (Lingering::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let before = [device(2, true)];
        assert_eq!(lingering.uplinks(&before, vec![device(2, false)], at(0)), before);
        assert_eq!(lingering.uplinks(&before, vec![device(2, true)], at(50)), before);
        assert_eq!(lingering.uplinks(&before, vec![device(2, false)], at(70)), before, "a minute from now on");
        assert_eq!(lingering.uplinks(&before, vec![], at(71)), [], "the interface is gone, or a part of another");
        let renamed = Uplink { name: "other".to_owned(), ..device(2, false) };
        assert_eq!(lingering.uplinks(&before, vec![renamed], at(72)), []);
    }
}
