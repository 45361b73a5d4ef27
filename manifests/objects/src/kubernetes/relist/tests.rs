use proptest::prelude::*;

use super::{Reading, Relist, Step};
use crate::{Event, Kind, Labels, Namespace, Object, ObjectKey};
use std::collections::BTreeSet;

fn key(name: u8) -> ObjectKey {
    ObjectKey::cluster(name.to_string())
}

fn seen(name: u8) -> Step {
    let object = Object::Namespace(Namespace { name: name.to_string(), labels: Labels::new() });
    Step::Seen(Box::new(Reading { key: Some(key(name)), object: Some(object), reasons: vec![] }))
}

fn unreadable(name: u8) -> Step {
    Step::Seen(Box::new(Reading { key: Some(key(name)), object: None, reasons: vec!["broken".into()] }))
}

fn run(relist: &mut Relist, steps: impl IntoIterator<Item = Step>) -> Vec<Event> {
    steps.into_iter().flat_map(|step| relist.step(step)).collect()
}

fn deleted(name: u8) -> Event {
    Event::Deleted(Kind::Namespace, key(name))
}

#[test]
fn s54_the_first_complete_list_syncs_once() {
    let mut relist = Relist::new(Kind::Namespace);
    let broken_off = run(&mut relist, [Step::ListBegins, seen(1), Step::ListBegins, seen(1)]);
    assert!(!broken_off.contains(&Event::Synced(Kind::Namespace)));
    assert_eq!(relist.step(Step::ListEnds), [Event::Synced(Kind::Namespace)]);
    assert_eq!(run(&mut relist, [Step::ListBegins, seen(1), Step::ListEnds]).len(), 1);
}

#[test]
fn what_a_new_list_lacks_is_deleted() {
    let mut relist = Relist::new(Kind::Namespace);
    run(&mut relist, [Step::ListBegins, seen(1), seen(2), Step::ListEnds, seen(3), Step::Gone(key(2))]);
    assert_eq!(run(&mut relist, [Step::ListBegins, Step::ListEnds]), [deleted(1), deleted(3)]);
    assert_eq!(run(&mut relist, [Step::ListBegins, Step::ListEnds]), []);
}

#[test]
fn a_list_that_breaks_off_deletes_nothing() {
    let mut relist = Relist::new(Kind::Namespace);
    run(&mut relist, [Step::ListBegins, seen(1), seen(2), Step::ListEnds]);
    let events = run(&mut relist, [Step::ListBegins, seen(1), Step::ListBegins, seen(2), Step::ListEnds]);
    assert_eq!(events.last(), Some(&deleted(1)));
}

#[test]
fn an_unreadable_object_keeps_what_was_told() {
    let mut relist = Relist::new(Kind::Namespace);
    run(&mut relist, [Step::ListBegins, seen(1), Step::ListEnds]);
    let events = run(&mut relist, [Step::ListBegins, unreadable(1), Step::ListEnds]);
    let [Event::Invalid { key: Some(name), origin, reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((name, origin.as_str(), reason.as_str()), (&key(1), "the API server: Namespace 1", "broken"));
    assert_eq!(run(&mut relist, [Step::ListBegins, Step::ListEnds]), [deleted(1)]);
}

#[test]
fn a_nameless_object_is_told_and_forgotten() {
    let mut relist = Relist::new(Kind::Namespace);
    let reading = Reading { key: None, object: None, reasons: vec!["nameless".into()] };
    assert!(matches!(&relist.step(Step::Seen(Box::new(reading)))[..], [Event::Invalid { key: None, .. }]));
}

proptest! {
    /// A consumer of the stream has, after each complete list and the changes since, what the server has.
    #[test]
    fn the_stream_follows_the_server(rounds in prop::collection::vec(
        (prop::collection::btree_set(0..8u8, 0..8), prop::collection::vec((any::<bool>(), 0..8u8), 0..6)), 1..6)
    ) {
        let mut relist = Relist::new(Kind::Namespace);
        let mut consumer = BTreeSet::new();
        for (mut server, changes) in rounds {
            let mut steps = vec![Step::ListBegins];
            steps.extend(server.iter().map(|name| seen(*name)));
            steps.push(Step::ListEnds);
            for (exists, name) in changes {
                if exists { server.insert(name); } else { server.remove(&name); }
                steps.push(if exists { seen(name) } else { Step::Gone(key(name)) });
            }
            for event in run(&mut relist, steps) {
                match event {
                    Event::Applied(object) => _ = consumer.insert(object.key()),
                    Event::Deleted(_, key) => _ = consumer.remove(&key),
                    Event::Synced(_) => {}
                    Event::Invalid { .. } | Event::Mended { .. } => prop_assert!(false),
                }
            }
            prop_assert_eq!(&consumer, &server.iter().map(|name| key(*name)).collect());
        }
    }
}
