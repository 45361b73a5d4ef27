use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { name: 3, pod: 5, all: 8 };

/// An entry as the plainest model has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plain {
    pod: ObjectKey,
    name: String,
    address: IpAddr,
    until: u64,
    live: bool,
}

/// The entries, the longest known first.
#[derive(Debug, Clone, Default)]
struct Model {
    entries: Vec<Plain>,
    uids: BTreeMap<ObjectKey, String>,
    evicted: u64,
}

impl Model {
    /// Where the first entry is that may go: one that lingers, or else the longest known.
    fn first(&self, is: impl Fn(&Plain) -> bool) -> Option<usize> {
        let place = |live| self.entries.iter().position(|entry| entry.live == live && is(entry));
        place(false).or_else(|| place(true))
    }

    fn count(&self, is: impl Fn(&Plain) -> bool) -> usize {
        self.entries.iter().filter(|entry| is(entry)).count()
    }

    fn learn(&mut self, pod: &ObjectKey, uid: &str, name: &str, addresses: &[IpAddr], until: u64, now: u64) {
        if self.count(|entry| entry.pod == *pod) > 0 && self.uids.get(pod).is_some_and(|before| before != uid) {
            self.end(pod);
        }
        if !addresses.is_empty() {
            self.uids.insert(pod.clone(), uid.to_owned());
        }
        for address in addresses {
            let same = |entry: &Plain| entry.pod == *pod && entry.name == name && entry.address == *address;
            let before = self.entries.iter().position(same).map(|at| self.entries.remove(at));
            let until = before.filter(|entry| entry.live).map_or(until, |entry| entry.until.max(until));
            let (pod, name) = (pod.clone(), name.to_owned());
            self.entries.push(Plain { pod, name, address: *address, until, live: until > now });
        }
        loop {
            let of_pod = |entry: &Plain| entry.pod == *pod;
            let of_name = |entry: &Plain| of_pod(entry) && entry.name == name;
            let gone = if self.count(of_name) > BOUNDS.name {
                self.first(of_name)
            } else if self.count(of_pod) > BOUNDS.pod {
                self.first(of_pod)
            } else if self.entries.len() > BOUNDS.all {
                let mut pods: Vec<_> = self.entries.iter().map(|entry| entry.pod.clone()).collect();
                pods.sort();
                let most = pods.iter().max_by_key(|pod| self.count(|entry| entry.pod == **pod)).cloned();
                self.first(|entry| Some(&entry.pod) == most.as_ref())
            } else {
                return;
            };
            self.entries.remove(gone.unwrap());
            self.evicted += 1;
        }
    }

    fn end(&mut self, pod: &ObjectKey) {
        self.entries.retain(|entry| entry.pod != *pod);
    }

    fn told(&self, address: IpAddr) -> BTreeSet<(ObjectKey, String, bool)> {
        let told = self.entries.iter().filter(|entry| entry.address == address);
        told.map(|entry| (entry.pod.clone(), entry.name.clone(), entry.live)).collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Learn { pod: u8, uid: u8, name: u8, addresses: Vec<u8>, for_ms: u64 },
    Pass(u64),
    Keep(u8),
    End(u8),
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    let learn =
        (0..3_u8, prop_oneof![8 => Just(0_u8), 1 => Just(1)], 0..3_u8, prop::collection::vec(0..6_u8, 0..4), 0..40_u64);
    prop_oneof![
        8 => learn.prop_map(|(pod, uid, name, addresses, for_ms)| Step::Learn { pod, uid, name, addresses, for_ms }),
        4 => (0..30_u64).prop_map(Step::Pass),
        2 => any::<u8>().prop_map(Step::Keep),
        1 => (0..3_u8).prop_map(Step::End),
        1 => Just(Step::Restore),
    ]
}

fn key(pod: u8) -> ObjectKey {
    ObjectKey::new("x", format!("pod-{pod}"))
}

fn address(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

proptest! {
    #[test]
    fn names_are_told_expire_and_go_as_in_the_plainest_model(steps in prop::collection::vec(step(), 0..60)) {
        let (mut names, mut model, mut now) = (Names::new(BOUNDS), Model::default(), 1000);
        let seen = |names: &Names| (0..6).map(|n| names.told(address(n)).map(|(pod, name, live)| (pod.clone(), name.to_owned(), live)).collect::<BTreeSet<_>>()).collect::<Vec<_>>();
        for step in steps {
            let before = seen(&names);
            let changed = match step {
                Step::Learn { pod, uid, name, addresses, for_ms } => {
                    let (pod, uid, name) = (key(pod), format!("u{uid}"), format!("n{name}"));
                    let addresses: Vec<_> = addresses.into_iter().map(address).collect();
                    model.learn(&pod, &uid, &name, &addresses, now + for_ms, now);
                    names.learn(&Answer { pod: &pod, uid: &uid, name: &name, addresses: &addresses, until: now + for_ms }, now)
                }
                Step::Pass(ms) => {
                    now += ms;
                    model.entries.iter_mut().for_each(|entry| entry.live &= entry.until > now);
                    names.expire(now)
                }
                Step::Keep(bits) => {
                    let is_used = |pod: &ObjectKey, ip: IpAddr| {
                        (0..3).any(|n| key(n) == *pod && (0..6).any(|a| address(a) == ip && bits >> ((n + a) % 8) & 1 == 1))
                    };
                    model.entries.retain(|entry| entry.live || is_used(&entry.pod, entry.address));
                    names.keep(is_used)
                }
                Step::End(pod) => {
                    model.end(&key(pod));
                    names.end(&key(pod))
                }
                Step::Restore => {
                    // What the journal has is what there is, but for the order in which it was told.
                    let mut again = Names::new(Bounds::default());
                    for (pod, uid, name, until, addresses) in names.answers() {
                        again.learn(&Answer { pod, uid, name, addresses: &addresses, until }, now);
                    }
                    prop_assert_eq!(seen(&again), seen(&names));
                    prop_assert_eq!(again.next_end(), names.next_end());
                    BTreeSet::new()
                }
            };
            let after = seen(&names);
            for n in 0..6 {
                prop_assert_eq!(&after[usize::from(n)], &model.told(address(n)), "{}", n);
                if before[usize::from(n)] != after[usize::from(n)] {
                    prop_assert!(changed.contains(&address(n)), "{} is not told of", n);
                }
            }
            prop_assert_eq!(names.len(), model.entries.len());
            prop_assert_eq!(names.evicted(), model.evicted);
            prop_assert_eq!(names.next_end(), model.entries.iter().filter(|entry| entry.live).map(|entry| entry.until).min());
            let lingering: BTreeSet<_> = model.entries.iter().filter(|entry| !entry.live).map(|entry| (entry.pod.clone(), entry.address)).collect();
            prop_assert_eq!(names.lingering().map(|(pod, ip)| (pod.clone(), ip)).collect::<BTreeSet<_>>(), lingering);
            let told: BTreeSet<_> = model.entries.iter().map(|entry| entry.address).collect();
            prop_assert_eq!(names.addresses().collect::<BTreeSet<_>>(), told);
        }
    }
}

#[test]
fn p76_a_pod_that_has_little_loses_nothing_to_one_that_asks_for_much() {
    let mut names = Names::new(Bounds { name: 10, pod: 1000, all: 1000 });
    let (small, large) = (key(0), key(1));
    let mut learn = |pod: &ObjectKey, name: &str, address: IpAddr| {
        names.learn(&Answer { pod, uid: "", name, addresses: &[address], until: 10 }, 0);
    };
    for n in 0..100_u8 {
        learn(&small, &format!("s{n}"), [192, 0, 2, n].into());
    }
    for n in 0..5000_u32 {
        learn(&large, &format!("l{n}"), (0x0a00_0000 + n).to_be_bytes().into());
    }
    assert_eq!((names.len(), names.evicted()), (1000, 4100));
    assert_eq!((0..100_u8).filter(|n| names.told([192, 0, 2, *n].into()).count() == 1).count(), 100);
}

#[test]
fn p76_a_thousand_names_with_a_hundred_addresses_each() {
    let mut names = Names::new(Bounds::default());
    let pod = key(0);
    for name in 0..1000_u32 {
        let addresses: Vec<IpAddr> = (0..100).map(|n| (0x0a00_0000 + name * 100 + n).to_be_bytes().into()).collect();
        names.learn(&Answer { pod: &pod, uid: "", name: &format!("n{name}"), addresses: &addresses, until: 10 }, 0);
    }
    assert_eq!((names.len(), names.evicted()), (100_000, 0));
    assert_eq!(names.expire(10).len(), 100_000);
    assert_eq!(names.keep(|_, _| false).len(), 100_000);
    assert!(names.is_empty());
}
