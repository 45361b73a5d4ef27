//! What the files of a directory have given so far, and what a change of some of them means. Pure.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};

use crate::{Event, Kind, Object, ObjectKey, read::Invalid};

/// An object's name in the stream.
type Id = (Kind, ObjectKey);

/// What a read of one file gave: `None` when the file is gone.
pub(super) type Reading = Option<Vec<Result<Object, Invalid>>>;

/// The objects of all files, and which of them the stream has.
#[derive(Debug, Default)]
pub(super) struct State {
    files: BTreeMap<String, BTreeMap<Id, Entry>>,
    /// Which files have an object.
    owners: BTreeMap<Id, BTreeSet<String>>,
    /// What the stream was told.
    given: BTreeMap<Id, Object>,
    /// What the stream was told of mistakes in each file, and of objects that are in several: origin and reason.
    mistakes: BTreeMap<String, Vec<(String, String)>>,
    conflicts: BTreeMap<Id, (String, String)>,
}

#[derive(Debug, Clone)]
struct Entry {
    object: Object,
    /// It could not be read the last time; this is what it was before.
    stale: bool,
}

impl State {
    /// Takes over new readings of some files, all at once, and says what changed: first what is new or different, then
    /// what is gone, last what can't be read. What is mended comes before the object that mends it.
    pub(super) fn update(&mut self, readings: &BTreeMap<String, Reading>) -> Vec<Event> {
        let (mut events, mut invalid) = (Vec::new(), Vec::new());
        let mut touched = BTreeSet::new();
        for (file, reading) in readings {
            let before = self.files.remove(file).unwrap_or_default();
            for id in before.keys() {
                self.disown(file, id);
            }
            touched.extend(before.keys().cloned());
            let mut found = Vec::new();
            let now = reading.as_ref().map(|reading| entries(file, reading, before, &mut found));
            self.mend(file, &found, &mut events);
            invalid.extend(found);
            let Some(now) = now else { continue };
            for id in now.keys() {
                self.owners.entry(id.clone()).or_default().insert(file.clone());
            }
            touched.extend(now.keys().cloned());
            self.files.insert(file.clone(), now);
        }
        for id in &touched {
            let conflict = self.conflict(id);
            let now = conflict.as_ref().and_then(said);
            let before = self.conflicts.get(id).cloned();
            if before.is_some() && before != now {
                events.extend(before.map(|(origin, reason)| Event::Mended { origin, reason }));
            }
            match now {
                Some(now) => _ = self.conflicts.insert(id.clone(), now),
                None => _ = self.conflicts.remove(id),
            }
            invalid.extend(conflict);
        }
        self.publish(&touched, &mut events);
        events.extend(invalid);
        events
    }

    /// Takes over the mistakes of a file, and says which of those before are gone.
    fn mend(&mut self, file: &str, found: &[Event], events: &mut Vec<Event>) {
        let now: Vec<_> = found.iter().filter_map(said).collect();
        let before = self.mistakes.remove(file).unwrap_or_default();
        let gone = before.into_iter().filter(|mistake| !now.contains(mistake));
        events.extend(gone.map(|(origin, reason)| Event::Mended { origin, reason }));
        if !now.is_empty() {
            self.mistakes.insert(file.to_owned(), now);
        }
    }

    fn disown(&mut self, file: &str, id: &Id) {
        if let Some(owners) = self.owners.get_mut(id) {
            owners.remove(file);
            if owners.is_empty() {
                self.owners.remove(id);
            }
        }
    }

    /// The object that counts, with its file: one that could be read before one that could not, then by file name.
    fn winner(&self, id: &Id) -> Option<(&String, &Entry)> {
        let owners = self.owners.get(id)?.iter();
        let entries = owners.filter_map(|file| Some((file, self.files.get(file)?.get(id)?)));
        entries.min_by_key(|(file, entry)| (entry.stale, *file))
    }

    /// What to say when an object is in several files.
    fn conflict(&self, id: &Id) -> Option<Event> {
        let owners = self.owners.get(id)?.iter();
        let fresh: Vec<&String> =
            owners.filter(|file| self.files.get(*file).and_then(|f| f.get(id)).is_some_and(|e| !e.stale)).collect();
        let (winner, _) = self.winner(id)?;
        if fresh.len() < 2 {
            return None;
        }
        let others: Vec<&str> = fresh.into_iter().filter(|file| *file != winner).map(String::as_str).collect();
        let others = others.join(", ");
        let reason =
            format!("the same object is in {winner} and in {others}; {winner} is used, remove it from {others}");
        Some(Event::Invalid { kind: Some(id.0), key: Some(id.1.clone()), origin: others, reason })
    }

    fn publish(&mut self, touched: &BTreeSet<Id>, events: &mut Vec<Event>) {
        let mut gone = Vec::new();
        // A consumer that goes object by object should know the namespace before the pod, and lose it after.
        for kind in Kind::ALL {
            for id in touched.iter().filter(|id| id.0 == kind) {
                match self.winner(id).map(|(_, entry)| entry.object.clone()) {
                    Some(object) if self.given.get(id) != Some(&object) => {
                        self.given.insert(id.clone(), object.clone());
                        events.push(Event::Applied(object));
                    }
                    Some(_) => {}
                    None => {
                        if self.given.remove(id).is_some() {
                            gone.push(Event::Deleted(id.0, id.1.clone()));
                        }
                    }
                }
            }
        }
        events.extend(gone.into_iter().rev());
    }

    #[cfg(test)]
    pub(super) fn given(&self) -> &BTreeMap<Id, Object> {
        &self.given
    }
}

/// The origin and the reason of a mistake.
fn said(event: &Event) -> Option<(String, String)> {
    match event {
        Event::Invalid { origin, reason, .. } => Some((origin.clone(), reason.clone())),
        _ => None,
    }
}

/// The objects of a file: those just read, and those of before that may hide behind what can't be read now.
fn entries(
    file: &str,
    reading: &[Result<Object, Invalid>],
    before: BTreeMap<Id, Entry>,
    events: &mut Vec<Event>,
) -> BTreeMap<Id, Entry> {
    let mut now: BTreeMap<Id, Entry> = BTreeMap::new();
    let mut unreadable = BTreeSet::new();
    let mut nameless = false;
    for result in reading {
        match result {
            Ok(object) => match now.entry((object.kind(), object.key())) {
                Slot::Vacant(slot) => _ = slot.insert(Entry { object: object.clone(), stale: false }),
                Slot::Occupied(slot) => {
                    let (kind, key) = slot.key().clone();
                    let reason = "the same object is in this file twice; the first is used, remove the \
                        other"
                        .to_owned();
                    events.push(Event::Invalid { kind: Some(kind), key: Some(key), origin: file.to_owned(), reason });
                }
            },
            Err(invalid) => {
                events.push(invalid.event(file));
                match (invalid.kind, &invalid.key) {
                    _ if invalid.piece => {}
                    (Some(kind), Some(key)) => _ = unreadable.insert((kind, key.clone())),
                    _ => nameless = true,
                }
            }
        }
    }
    for (id, entry) in before {
        if (nameless || unreadable.contains(&id)) && !now.contains_key(&id) {
            now.insert(id, Entry { stale: true, ..entry });
        }
    }
    now
}

#[cfg(test)]
mod tests;
