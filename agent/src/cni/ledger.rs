//! Who has which slot and addresses: the state, and the records that change it.
//!
//! The state is a pure function of the records. A change is written to the journal as a record first and applied then,
//! so that reading the journal gives the same state.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use fairlead_cni::Mac;
use fairlead_cni::protocol::{Attachment, DEFAULT_NETWORK, FIRST_POD_IFINDEX, PodRef, SLOTS};
use fairlead_objects::ObjectKey;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::pool::Pool;
use super::{AttachedPod, CniError};

/// Addresses from here on are not given by themselves: a pod can only ask for one. A node has at most [`SLOTS`] pods,
/// and short IPv6 addresses are easier to read.
const WINDOW: u128 = 1 << 16;

// The plugin is built without the datapath; they have to agree on what an interface index says.
const _: () = assert!(FIRST_POD_IFINDEX == fairlead_datapath::IFINDEX_BASE && SLOTS == fairlead_datapath::MAX_PODS);

/// What an attachment has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The pod's index in every per-pod map.
    pub slot: u16,
    /// Its addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// The pod.
    pub pod: PodRef,
    /// `CNI_NETNS`
    pub netns: String,
    /// The inode of that namespace.
    pub netns_inode: u64,
    /// Whether programs were attached and policy was in force.
    pub attached: bool,
    /// The name of its network; records of an earlier release do not say it.
    #[serde(default = "default_network")]
    pub network: String,
    /// The address of the pod's side that the runtime asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

fn default_network() -> String {
    DEFAULT_NETWORK.to_owned()
}

impl Entry {
    /// The address of the pod's side.
    #[must_use]
    pub fn pod_mac(&self, attachment: &Attachment) -> Mac {
        self.mac.unwrap_or_else(|| attachment.pod_mac())
    }

    /// The pod with its place, as the datapath wants it.
    #[must_use]
    pub fn to_pod(&self, attachment: &Attachment) -> AttachedPod {
        AttachedPod {
            slot: self.slot,
            ifindex: FIRST_POD_IFINDEX + u32::from(self.slot),
            host_link: attachment.host_link(),
            key: ObjectKey::new(&self.pod.namespace, &self.pod.name),
            uid: self.pod.uid.clone(),
            container_id: attachment.container_id.clone(),
            ifname: attachment.ifname.clone(),
            ips: self.ips.clone(),
            host_mac: attachment.host_mac(),
            pod_mac: self.pod_mac(attachment),
            netns: self.netns.clone(),
            netns_inode: self.netns_inode,
        }
    }
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The node's pod ranges are these.
    Ranges {
        /// `spec.podCIDRs`
        cidrs: Vec<IpNetwork>,
    },
    /// These were given back, in this order, and rest.
    Resting {
        /// Slots.
        slots: Vec<u16>,
        /// Addresses.
        ips: Vec<IpAddr>,
    },
    /// An attachment has this.
    Reserved {
        /// Whose it is.
        attachment: Attachment,
        /// What it has.
        entry: Entry,
    },
    /// Its policy is in force.
    Attached {
        /// Whose it is.
        attachment: Attachment,
    },
    /// It has nothing any more.
    Released {
        /// Whose it was.
        attachment: Attachment,
    },
}

/// How many addresses of a range can be given to pods.
#[must_use]
pub(crate) fn room(range: IpNetwork) -> u64 {
    Range::new(range).pool.len()
}

/// One of the node's pod ranges.
#[derive(Debug, Clone)]
struct Range {
    network: IpNetwork,
    pool: Pool,
}

impl Range {
    /// Network address, broadcast address and the first host address, which other plugins use as a gateway, are not
    /// given.
    fn new(network: IpNetwork) -> Self {
        let bits = if network.is_ipv4() { 32 } else { 128 };
        let size = 1u128.checked_shl(bits - u32::from(network.prefix())).unwrap_or(u128::MAX);
        let last = if network.is_ipv4() { size.saturating_sub(1) } else { size };
        Self { network, pool: Pool::new(2..last.clamp(2, WINDOW)) }
    }

    fn base(&self) -> u128 {
        match self.network.network() {
            IpAddr::V4(ip) => u32::from(ip).into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }

    /// The place of an address in the range, where it is one that a pod can have.
    fn offset(&self, ip: IpAddr) -> Option<u128> {
        let number: u128 = match ip {
            IpAddr::V4(ip) => u32::from(ip).into(),
            IpAddr::V6(ip) => ip.into(),
        };
        let usable = match self.network {
            IpNetwork::V4(network) => ip != IpAddr::V4(network.broadcast()),
            IpNetwork::V6(_) => true,
        };
        let offset = self.network.contains(ip).then(|| number - self.base())?;
        (usable && offset >= 2).then_some(offset)
    }

    fn ip(&self, offset: u128) -> Option<IpAddr> {
        let number = self.base().checked_add(offset)?;
        Some(match self.network {
            IpNetwork::V4(_) => Ipv4Addr::from(u32::try_from(number).ok()?).into(),
            IpNetwork::V6(_) => Ipv6Addr::from(number).into(),
        })
    }
}

/// Who has which slot and addresses.
#[derive(Debug, Clone)]
pub struct Ledger {
    ranges: Vec<Range>,
    slots: Pool,
    entries: BTreeMap<Attachment, Entry>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { ranges: Vec::new(), slots: Pool::new(0..SLOTS.into()), entries: BTreeMap::new() }
    }
}

impl Ledger {
    /// What an attachment has.
    #[must_use]
    pub fn get(&self, attachment: &Attachment) -> Option<&Entry> {
        self.entries.get(attachment)
    }

    /// Every attachment.
    pub fn entries(&self) -> impl Iterator<Item = (&Attachment, &Entry)> {
        self.entries.iter()
    }

    /// Whether these are the ranges it gives from.
    #[must_use]
    pub fn has_ranges(&self, cidrs: &[IpNetwork]) -> bool {
        self.ranges.iter().map(|range| range.network).eq(cidrs.iter().copied())
    }

    /// Chooses a slot, and an address of each family for which the node has a range. Nothing changes: it is the
    /// record made of it that does.
    ///
    /// `wanted` are addresses that the pod's object carries; they are chosen when they are of the node's ranges and
    /// free, even while they rest. `foreign` says that another pod's object carries an address.
    ///
    /// # Errors
    /// When there is no free slot, no range, or no free address in one.
    pub fn choose(
        &self,
        now: Duration,
        wanted: &[IpAddr],
        foreign: impl Fn(IpAddr) -> bool,
    ) -> Result<(u16, Vec<IpAddr>), CniError> {
        let slot = self.slots.choose(now, |_| true).and_then(|n| u16::try_from(n).ok());
        let slot = slot.ok_or(CniError::NoSlot(SLOTS))?;
        let mut ips: Vec<IpAddr> = Vec::with_capacity(2);
        let (v4, v6): (Vec<&Range>, Vec<&Range>) = self.ranges.iter().partition(|range| range.network.is_ipv4());
        for family in [v4, v6] {
            let Some(first) = family.first() else { continue };
            let asked = wanted.iter().copied().find(|ip| {
                family.iter().any(|range| range.offset(*ip).is_some_and(|offset| !range.pool.is_used(offset)))
            });
            let given = asked.or_else(|| {
                family.iter().find_map(|range| {
                    let accept = |offset| range.ip(offset).is_some_and(|ip| !foreign(ip));
                    range.pool.choose(now, accept).and_then(|offset| range.ip(offset))
                })
            });
            ips.push(given.ok_or_else(|| CniError::Full {
                range: first.network,
                used: first.pool.used(),
                resting: first.pool.resting().count(),
            })?);
        }
        if ips.is_empty() { Err(CniError::NoRanges) } else { Ok((slot, ips)) }
    }

    /// Makes a change. A record that can't be, because the journal lost one before it, changes what it can.
    pub fn apply(&mut self, record: Record, now: Duration) {
        match record {
            Record::Ranges { cidrs } => {
                let used: Vec<IpAddr> = self.entries.values().flat_map(|entry| entry.ips.iter().copied()).collect();
                self.ranges = cidrs.into_iter().map(Range::new).collect();
                for ip in used {
                    self.each_range(ip, |pool, offset| {
                        pool.claim(offset);
                    });
                }
            }
            Record::Resting { slots, ips } => {
                for slot in slots {
                    self.slots.rest(slot.into(), now);
                }
                for ip in ips {
                    self.each_range(ip, |pool, offset| pool.rest(offset, now));
                }
            }
            Record::Reserved { attachment, entry } => {
                self.release(&attachment, now);
                self.hold(entry.slot, &entry.ips);
                self.entries.insert(attachment, entry);
            }
            Record::Attached { attachment } => {
                if let Some(entry) = self.entries.get_mut(&attachment) {
                    entry.attached = true;
                }
            }
            Record::Released { attachment } => self.release(&attachment, now),
        }
    }

    /// Whether an address was given back a moment ago.
    #[must_use]
    pub fn rests(&self, ip: IpAddr, now: Duration) -> bool {
        self.ranges.iter().any(|range| range.offset(ip).is_some_and(|offset| range.pool.rests(offset, now)))
    }

    /// Keeps a slot and addresses from being given, for a link that has them and that no entry explains.
    pub fn hold(&mut self, slot: u16, ips: &[IpAddr]) {
        self.slots.claim(slot.into());
        for ip in ips {
            self.each_range(*ip, |pool, offset| {
                pool.claim(offset);
            });
        }
    }

    /// Gives back what was held or had.
    pub fn unhold(&mut self, slot: u16, ips: &[IpAddr], now: Duration) {
        self.slots.release(slot.into(), now);
        for ip in ips {
            self.each_range(*ip, |pool, offset| pool.release(offset, now));
        }
    }

    fn release(&mut self, attachment: &Attachment, now: Duration) {
        if let Some(entry) = self.entries.remove(attachment) {
            self.unhold(entry.slot, &entry.ips, now);
        }
    }

    fn each_range(&mut self, ip: IpAddr, mut change: impl FnMut(&mut Pool, u128)) {
        for range in &mut self.ranges {
            if let Some(offset) = range.offset(ip) {
                change(&mut range.pool, offset);
            }
        }
    }

    /// Records that give this state from nothing.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Record> {
        let resting_ip = |range: &Range| range.pool.resting().filter_map(|o| range.ip(o)).collect::<Vec<_>>();
        let mut records = vec![
            Record::Ranges { cidrs: self.ranges.iter().map(|range| range.network).collect() },
            Record::Resting {
                slots: self.slots.resting().filter_map(|n| u16::try_from(n).ok()).collect(),
                ips: self.ranges.iter().flat_map(resting_ip).collect(),
            },
        ];
        records.extend(
            self.entries
                .iter()
                .map(|(attachment, entry)| Record::Reserved { attachment: attachment.clone(), entry: entry.clone() }),
        );
        records
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn attachment(n: usize) -> Attachment {
        Attachment { container_id: format!("c{n}"), ifname: "eth0".to_owned() }
    }

    fn entry((slot, ips): (u16, Vec<IpAddr>)) -> Entry {
        let pod = PodRef { namespace: "shop".to_owned(), name: "web".to_owned(), uid: None };
        Entry {
            slot,
            ips,
            pod,
            netns: "/run/netns/a".to_owned(),
            netns_inode: 1,
            attached: false,
            network: default_network(),
            mac: None,
        }
    }

    fn ledger(cidrs: &[&str]) -> Ledger {
        let mut ledger = Ledger::default();
        let cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        ledger.apply(Record::Ranges { cidrs }, Duration::ZERO);
        ledger
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn c21_first_addresses_skip_network_and_first_host() {
        let chosen = ledger(&["fd00:10:244:1::/64", "10.244.1.0/24"]).choose(LONG, &[], |_| false).unwrap();
        assert_eq!(chosen, (0, ips(&["10.244.1.2", "fd00:10:244:1::2"])), "IPv4 comes first");
    }

    #[test]
    fn c21_both_families_or_none() {
        let mut ledger = ledger(&["10.0.0.0/30", "fd00::/64"]);
        let first = ledger.choose(LONG, &[], |_| false).unwrap();
        assert_eq!(first.1, ips(&["10.0.0.2", "fd00::2"]), "10.0.0.3 is the broadcast address");
        ledger.apply(Record::Reserved { attachment: attachment(1), entry: entry(first) }, LONG);
        let error = ledger.choose(LONG, &[], |_| false).unwrap_err();
        assert_eq!(error.code(), 11);
        assert!(error.to_string().contains("10.0.0.0/30"), "{error}");
    }

    #[test]
    fn no_range_is_an_error_that_says_so() {
        for cidrs in [&[][..], &["10.0.0.0/32"], &["10.0.0.0/31"]] {
            let error = ledger(cidrs).choose(LONG, &[], |_| false).unwrap_err();
            assert_eq!(error.code(), 11, "{cidrs:?}");
        }
    }

    #[test]
    fn c21_addresses_of_the_pod_object_are_given_when_free() {
        let mut ledger = ledger(&["10.244.1.0/24", "fd00::/64"]);
        let wanted = ips(&["10.244.1.77", "fd00::1:2:3:4"]);
        let chosen = ledger.choose(LONG, &wanted, |_| false).unwrap();
        assert_eq!(chosen.1, wanted);
        ledger.apply(Record::Reserved { attachment: attachment(1), entry: entry(chosen) }, LONG);
        let again = ledger.choose(LONG, &wanted, |_| false).unwrap();
        assert_eq!(again.1, ips(&["10.244.1.2", "fd00::2"]), "taken: the next free ones");
        ledger.apply(Record::Released { attachment: attachment(1) }, LONG);
        let same = ledger.choose(LONG, &wanted, |_| false).unwrap();
        assert_eq!(same.1, wanted, "a pod's own address need not rest for it");
    }

    #[test]
    fn addresses_outside_the_ranges_are_not_given() {
        let ledger = ledger(&["10.244.1.0/24"]);
        for outside in ["10.244.2.5", "10.244.1.0", "10.244.1.1", "10.244.1.255", "fd00::5"] {
            assert_eq!(ledger.choose(LONG, &ips(&[outside]), |_| false).unwrap().1, ips(&["10.244.1.2"]), "{outside}");
        }
    }

    #[test]
    fn c21_addresses_that_another_pod_object_carries_are_not_given() {
        let ledger = ledger(&["10.244.1.0/29"]);
        let carried = ips(&["10.244.1.2", "10.244.1.4"]);
        let chosen = ledger.choose(LONG, &[], |ip| carried.contains(&ip)).unwrap();
        assert_eq!(chosen.1, ips(&["10.244.1.3"]));
        assert!(ledger.choose(LONG, &[], |_| true).is_err());
    }

    #[test]
    fn held_slots_and_addresses_are_not_given_until_let_go() {
        let mut ledger = ledger(&["10.244.1.0/30"]);
        ledger.hold(0, &ips(&["10.244.1.2"]));
        assert!(ledger.choose(LONG, &[], |_| false).is_err());
        ledger.unhold(0, &ips(&["10.244.1.2"]), Duration::ZERO);
        assert_eq!(ledger.choose(LONG, &[], |_| false).unwrap(), (1, ips(&["10.244.1.2"])));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve(usize),
        Attach(usize),
        Release(usize),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..12usize).prop_map(Step::Reserve),
            1 => (0..12usize).prop_map(Step::Attach),
            3 => (0..12usize).prop_map(Step::Release),
            1 => (0..10u64).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        #[test]
        fn never_the_same_address_twice_and_a_snapshot_is_the_state(steps in steps()) {
            let mut ledger = ledger(&["10.244.1.0/29", "fd00::/64"]);
            let mut records = ledger.snapshot();
            let mut now = Duration::ZERO;
            for step in steps {
                let record = match step {
                    Step::Reserve(n) if ledger.get(&attachment(n)).is_none() => {
                        let Ok(chosen) = ledger.choose(now, &[], |_| false) else { continue };
                        Record::Reserved { attachment: attachment(n), entry: entry(chosen) }
                    }
                    Step::Reserve(_) => continue,
                    Step::Attach(n) => Record::Attached { attachment: attachment(n) },
                    Step::Release(n) => Record::Released { attachment: attachment(n) },
                    Step::Wait(s) => { now += Duration::from_secs(s); continue }
                };
                ledger.apply(record.clone(), now);
                records.push(record);
                let mut seen = HashSet::new();
                for (_, entry) in ledger.entries() {
                    prop_assert!(seen.insert(entry.slot.to_string()));
                    for ip in &entry.ips {
                        prop_assert!(seen.insert(ip.to_string()), "{} twice", ip);
                    }
                }
            }
            for replayed in [records, ledger.snapshot()] {
                let mut other = Ledger::default();
                replayed.into_iter().for_each(|record| other.apply(record, Duration::ZERO));
                prop_assert_eq!(other.snapshot(), ledger.snapshot());
                // What comes next is the same too, once everything has rested.
                prop_assert_eq!(
                    other.choose(LONG * 2, &[], |_| false).ok(), ledger.choose(LONG * 2, &[], |_| false).ok()
                );
            }
        }
    }

    #[test]
    fn c10_a_record_of_an_earlier_release_is_of_our_own_network() {
        let text =
            r#"{"slot":1,"ips":[],"pod":{"namespace":"a","name":"b"},"netns":"/n","netns_inode":1,"attached":true}"#;
        let entry: Entry = serde_json::from_str(text).unwrap();
        assert_eq!((entry.network.as_str(), entry.mac), (DEFAULT_NETWORK, None));
    }
}
