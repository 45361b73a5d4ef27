use std::net::Ipv4Addr;

use hickory_proto::op::ResponseCode;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::super::question::{Question, Wants};
use super::*;
use crate::WireName;
use crate::wire::RecordType;

fn reply() -> Arc<Reply> {
    let name = WireName::parse("example.org").unwrap();
    let question = Question::new(name.as_wire(), RecordType::A, Wants::default());
    Arc::new(Reply::empty(ResponseCode::NXDomain, &question).unwrap())
}

fn client(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn kept(born: Millis, life: Millis, after: Millis) -> Kept {
    Kept { reply: reply(), born, fresh: born + life, stale: born + life + after, denies: true }
}

#[derive(Debug, Clone)]
enum Step {
    Keep { name: u8, client: u8, life: Millis, after: Millis },
    Look(u8),
    Fail(u8),
    Wait(Millis),
}

fn any_step() -> impl Strategy<Value = Step> {
    let name = || 0..20_u8;
    prop_oneof![
        3 => (name(), 0..3_u8, 0..20_000_u64, 0..20_000_u64)
            .prop_map(|(name, client, life, after)| Step::Keep { name, client, life, after }),
        4 => name().prop_map(Step::Look),
        1 => name().prop_map(Step::Fail),
        2 => (0..8_000_u64).prop_map(Step::Wait),
    ]
}

/// All that was ever kept, and until when nobody is to be asked.
type Naive = HashMap<u8, (Kept, Millis)>;

proptest! {
    #[test]
    fn what_it_says_is_what_a_list_of_all_answers_says(steps in vec(any_step(), 0..80), room in 1500..20_000_usize) {
        let mut shard = Shard::new(room);
        let mut naive = Naive::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Keep { name, client: number, life, after } => {
                    shard.keep(&[name], client(number), kept(now, life, after));
                    naive.insert(name, (kept(now, life, after), 0));
                    let (_, bytes, _) = shard.size();
                    prop_assert!(bytes <= room, "{} bytes of {}", bytes, room);
                }
                Step::Look(name) => match (shard.look(&[name], now), naive.get(&name)) {
                    (Found::Fresh { age, .. }, Some((kept, _))) => {
                        prop_assert!(now < kept.fresh);
                        prop_assert_eq!(age, now - kept.born);
                    }
                    (Found::Stale(_), Some((kept, quiet))) => {
                        prop_assert!(kept.fresh <= now && now < kept.stale && now < *quiet);
                    }
                    (Found::Nothing, Some((kept, quiet))) => {
                        let (.., evicted) = shard.size();
                        let due = now < kept.fresh || now < kept.stale && now < *quiet;
                        prop_assert!(!due || evicted > 0, "it is there unless it had to go");
                    }
                    (found, None) => prop_assert_eq!(found, Found::Nothing),
                },
                Step::Fail(name) => {
                    let given = shard.fall_back(&[name], now, now + 5000);
                    if let Some((kept, quiet)) = naive.get_mut(&name) {
                        prop_assert!(given.is_none() || now < kept.stale);
                        if given.is_some() {
                            *quiet = now + 5000;
                        }
                    }
                }
                Step::Wait(time) => now += time,
            }
            let sum: usize = shard.entries.values().map(|entry| entry.cost).sum();
            prop_assert_eq!(sum, shard.bytes);
            let shares: usize = shard.clients.values().map(|share| share.bytes).sum();
            prop_assert_eq!(shares, shard.bytes);
            prop_assert_eq!(shard.ranks.len(), shard.clients.len());
        }
    }
}

#[test]
fn a_flood_of_names_costs_only_the_one_that_asks_for_them() {
    let mut shard = Shard::new(100_000);
    for name in 0..50_u32 {
        shard.keep(&name.to_be_bytes(), client(1), kept(0, 60_000, 0));
    }
    for name in 1000..100_000_u32 {
        shard.keep(&name.to_be_bytes(), client(2), kept(0, 60_000, 0));
        // Even if it uses what it asked for.
        shard.look(&name.to_be_bytes(), 1);
    }
    for name in 0..50_u32 {
        assert_ne!(shard.look(&name.to_be_bytes(), 2), Found::Nothing, "{name}");
    }
    let (_, bytes, evicted) = shard.size();
    assert!(bytes <= 100_000 && evicted > 90_000);
    let queued: usize = shard.clients.values().map(|share| share.queue.len()).sum();
    assert!(queued < 1000, "{queued} entries in the queues");
}

#[test]
fn what_is_asked_often_is_renewed_before_it_goes_and_by_one_only() {
    let mut shard = Shard::new(10_000);
    shard.keep(b"name", client(1), kept(0, 30_000, 0));
    let mut renewals = Vec::new();
    for now in (0..30_000).step_by(500) {
        if let Found::Fresh { renew: true, .. } = shard.look(b"name", now) {
            renewals.push(now);
        }
    }
    assert_eq!(renewals, [27_000]);
    shard.keep(b"seldom", client(1), kept(0, 30_000, 0));
    assert!(matches!(shard.look(b"seldom", 29_000), Found::Fresh { renew: false, .. }));
}
