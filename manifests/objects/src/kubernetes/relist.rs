//! What a watch of one kind has told, so that a list which follows a lost watch can be compared with it. Pure.

use std::collections::BTreeSet;

use crate::{Event, Kind, Object, ObjectKey};

/// What a watch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A list begins.
    ListBegins,
    /// An object of the list, or a change of one: what it reads as.
    Seen(Box<Reading>),
    /// The list is complete.
    ListEnds,
    /// The object is gone.
    Gone(ObjectKey),
}

/// An object as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    /// Its name, if it has one at all.
    pub(super) key: Option<ObjectKey>,
    /// Its slim form, or nothing if it has none.
    pub(super) object: Option<Object>,
    /// What is wrong with it or with pieces of it.
    pub(super) reasons: Vec<String>,
}

/// The state of one kind's watch.
#[derive(Debug)]
pub(super) struct Relist {
    kind: Kind,
    /// Objects that the stream has.
    told: BTreeSet<ObjectKey>,
    /// Those that the list in progress has named.
    listed: Option<BTreeSet<ObjectKey>>,
    synced: bool,
}

impl Relist {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, told: BTreeSet::new(), listed: None, synced: false }
    }

    /// Whether the stream has any.
    pub(super) fn has_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// What the stream is to be told about a step.
    pub(super) fn step(&mut self, step: Step) -> Vec<Event> {
        match step {
            // A list that broke off is forgotten: only a complete one says what is gone.
            Step::ListBegins => {
                self.listed = Some(BTreeSet::new());
                Vec::new()
            }
            Step::Seen(reading) => self.seen(*reading),
            Step::ListEnds => self.list_ends(),
            Step::Gone(key) => {
                self.told.remove(&key);
                vec![Event::Deleted(self.kind, key)]
            }
        }
    }

    fn seen(&mut self, reading: Reading) -> Vec<Event> {
        let Reading { key, object, reasons } = reading;
        // An object that can't be read still exists: what was told of it before stays.
        if let (Some(listed), Some(key)) = (&mut self.listed, &key) {
            listed.insert(key.clone());
        }
        let origin = match &key {
            Some(key) => format!("the API server: {} {key}", self.kind.as_str()),
            None => format!("the API server: {}", self.kind.as_str()),
        };
        if let (Some(_), Some(key)) = (&object, &key) {
            self.told.insert(key.clone());
        }
        let invalid =
            |reason| Event::Invalid { kind: Some(self.kind), key: key.clone(), origin: origin.clone(), reason };
        object.map(Event::Applied).into_iter().chain(reasons.into_iter().map(invalid)).collect()
    }

    fn list_ends(&mut self) -> Vec<Event> {
        let Some(listed) = self.listed.take() else { return Vec::new() };
        let gone: Vec<ObjectKey> = self.told.difference(&listed).cloned().collect();
        self.told.retain(|key| listed.contains(key));
        let mut events: Vec<Event> = gone.into_iter().map(|key| Event::Deleted(self.kind, key)).collect();
        if !self.synced {
            self.synced = true;
            events.push(Event::Synced(self.kind));
        }
        events
    }
}

#[cfg(test)]
mod tests;
