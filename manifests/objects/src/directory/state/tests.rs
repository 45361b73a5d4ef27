use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Id, Reading, State};
use crate::{Event, Kind, Object, ObjectKey, read_str};

fn namespace(name: &str, version: u8) -> String {
    format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{v: '{version}'}}}}}}\n---\n")
}

fn reading(text: &str) -> Reading {
    Some(read_str(text))
}

fn update<const N: usize>(state: &mut State, files: [(&str, Reading); N]) -> Vec<Event> {
    state.update(&files.into_iter().map(|(name, reading)| (name.to_owned(), reading)).collect())
}

fn applied(text: &str) -> Event {
    Event::Applied(read_str(text).remove(0).unwrap())
}

fn deleted(name: &str) -> Event {
    Event::Deleted(Kind::Namespace, ObjectKey::cluster(name))
}

#[test]
fn only_what_changes_is_told() {
    let mut state = State::default();
    let both = namespace("a", 1) + &namespace("b", 1);
    assert_eq!(update(&mut state, [("f", reading(&both))]).len(), 2);
    assert_eq!(update(&mut state, [("f", reading(&both))]), []);
    let changed = namespace("b", 2);
    assert_eq!(update(&mut state, [("f", reading(&changed))]), [applied(&changed), deleted("a")]);
    assert_eq!(update(&mut state, [("f", None)]), [deleted("b")]);
    assert_eq!(update(&mut state, [("f", None)]), []);
}

#[test]
fn an_object_may_move_between_files() {
    let mut state = State::default();
    update(&mut state, [("f", reading(&namespace("a", 1)))]);
    assert_eq!(update(&mut state, [("f", None), ("g", reading(&namespace("a", 1)))]), []);
    assert_eq!(update(&mut state, [("g", None)]), [deleted("a")]);
}

#[test]
fn one_object_in_two_files_names_both() {
    let mut state = State::default();
    update(&mut state, [("g", reading(&namespace("a", 1)))]);
    let events = update(&mut state, [("f", reading(&namespace("a", 2))), ("h", reading(&namespace("a", 3)))]);
    let [Event::Applied(_), Event::Invalid { origin, reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(origin, "g, h");
    assert_eq!(reason, "the same object is in f and in g, h; f is used, remove it from g, h");
    assert_eq!(events[0], applied(&namespace("a", 2)));
    let mended = Event::Mended { origin: origin.clone(), reason: reason.clone() };
    assert_eq!(update(&mut state, [("f", None), ("h", None)]), [mended, applied(&namespace("a", 1))]);
}

#[test]
fn one_object_twice_in_a_file_is_said() {
    let mut state = State::default();
    let events = update(&mut state, [("f", reading(&(namespace("a", 1) + &namespace("a", 2))))]);
    assert!(
        matches!(events.last(), Some(Event::Invalid { reason, .. }) if reason.contains("in this file twice")),
        "{events:?}"
    );
    assert_eq!(events[0], applied(&namespace("a", 1)));
}

#[test]
fn a_broken_document_disturbs_nothing() {
    let mut state = State::default();
    update(&mut state, [("f", reading(&(namespace("a", 1) + &namespace("b", 1))))]);
    // `b` may be what is broken, so it stays; `c` is new all the same.
    let text = format!("{}kind: [\n---\n{}", namespace("a", 2), namespace("c", 1));
    let events = update(&mut state, [("f", reading(&text))]);
    let Event::Invalid { kind: None, key: None, origin, reason } = &events[2] else { panic!("{events:?}") };
    assert_eq!(origin, "f: document 2");
    assert_eq!(events[..2], [applied(&namespace("a", 2)), applied(&namespace("c", 1))]);
    let mended = Event::Mended { origin: origin.clone(), reason: reason.clone() };
    assert_eq!(update(&mut state, [("f", reading(&namespace("a", 2)))]), [mended, deleted("c"), deleted("b")]);
}

#[test]
fn a_broken_object_keeps_its_last_form() {
    let mut state = State::default();
    let service = |port: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{clusterIP: 10.96.0.1, ports: [{{port: {port}}}]}}}}\n---\n"
        )
    };
    update(&mut state, [("f", reading(&(service("80") + &namespace("a", 1))))]);
    let events = update(&mut state, [("f", reading(&service("http")))]);
    let [gone, Event::Invalid { kind: Some(Kind::Service), key: Some(key), origin, reason }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((key.to_string().as_str(), gone), ("default/s", &deleted("a")));
    let mended = Event::Mended { origin: origin.clone(), reason: reason.clone() };
    assert_eq!(update(&mut state, [("f", reading(&service("http")))]), events[1..], "it is said again, not mended");
    // As it was before: nothing is applied, and all is well again.
    assert_eq!(update(&mut state, [("f", reading(&service("80")))]), [mended]);
    assert_eq!(update(&mut state, [("f", reading(&service("81")))]), [applied(&service("81"))]);
}

#[test]
fn a_file_that_is_gone_keeps_nothing() {
    let mut state = State::default();
    update(&mut state, [("f", reading(&namespace("a", 1)))]);
    assert_eq!(update(&mut state, [("f", reading("kind: ["))]).len(), 1);
    let events = update(&mut state, [("f", None)]);
    assert!(matches!(&events[0], Event::Mended { origin, .. } if origin == "f: document 1"), "{events:?}");
    assert_eq!(events[1..], [deleted("a")]);
}

#[test]
fn what_is_kept_yields_to_what_can_be_read() {
    let mut state = State::default();
    update(&mut state, [("f", reading(&namespace("a", 1)))]);
    let events = update(&mut state, [("f", reading("kind: [")), ("g", reading(&namespace("a", 2)))]);
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[0], applied(&namespace("a", 2)));
}

proptest! {
    /// However a directory came to its content, the stream has what one full read of that content gives.
    #[test]
    fn the_end_is_that_of_a_full_read(changes in prop::collection::vec(
        prop::collection::btree_map(
            "[fgh]", prop::option::of(prop::collection::btree_map("[abcd]", 0..3u8, 0..4)), 1..4), 1..8)
    ) {
        let mut state = State::default();
        let mut files: BTreeMap<String, BTreeMap<String, u8>> = BTreeMap::new();
        let mut consumer: BTreeMap<Id, Object> = BTreeMap::new();
        for change in changes {
            let mut readings = BTreeMap::new();
            for (file, content) in change {
                let text = content.as_ref().map(|c| c.iter().map(|(name, v)| namespace(name, *v)).collect::<String>());
                readings.insert(file.clone(), text.as_deref().and_then(reading));
                match content {
                    Some(content) => files.insert(file, content),
                    None => files.remove(&file),
                };
            }
            for event in state.update(&readings) {
                match event {
                    Event::Applied(object) => _ = consumer.insert((object.kind(), object.key()), object),
                    Event::Deleted(kind, key) => prop_assert!(consumer.remove(&(kind, key)).is_some()),
                    Event::Synced(_) => prop_assert!(false),
                    Event::Invalid { .. } | Event::Mended { .. } => {}
                }
            }
            let full = files.iter().map(|(file, content)| {
                (file.clone(), reading(&content.iter().map(|(name, v)| namespace(name, *v)).collect::<String>()))
            });
            let mut fresh = State::default();
            fresh.update(&full.collect());
            prop_assert_eq!(state.given(), fresh.given());
            prop_assert_eq!(state.given(), &consumer);
        }
    }
}
