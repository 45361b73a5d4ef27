//! Questions that wait for their answers, by id: a table for each socket and each connection.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::question::{Match, compare};
use super::trouble::Trouble;
use crate::random;
use crate::wire::Header;

/// How many questions wait in one table. Ids are guessed until a free one is found, which takes long where few are free,
/// and a forger has an easy game where many are taken.
pub(super) const MOST: usize = 4096;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// An answer.
    Answer(Vec<u8>),
    /// An answer in another spelling, from a server that doesn't keep it, or from nobody.
    Misspelled,
}

/// Who has a question that no task waits for: whoever reads what came of it says so.
pub(super) trait Hears: Send + Sync {
    /// A message has come that has to do with it.
    fn hear(self: Arc<Self>, found: Match, message: &[u8]);

    /// It was not sent, or nobody listens there.
    fn fails(self: Arc<Self>, trouble: Trouble);
}

/// What waits for answers on one socket or connection, by id.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Table>);

#[derive(Default)]
struct Table {
    asked: HashMap<u16, Asked>,
    /// Questions so far. An id is free as soon as its answer is there, which is before the one who waits has looked.
    count: u64,
    /// Answers so far.
    answered: u64,
    /// What was asked, the oldest first, if that is of interest. What waits no longer is taken off when it is first.
    order: Option<VecDeque<(u64, u16)>>,
    /// When the last answer came, or the first question after a time without any.
    moved: Option<Instant>,
    closed: bool,
}

/// A question that waits.
struct Asked {
    number: u64,
    section: Box<[u8]>,
    /// The answer must repeat its spelling.
    strict: bool,
    tell: Tell,
}

/// Who gets the answer.
enum Tell {
    /// A task that waits.
    Task(oneshot::Sender<Heard>),
    /// Whoever reads it does the rest.
    Direct(Arc<dyn Hears>),
}

/// What became of a message.
pub(super) enum Given {
    /// Nobody waits for it.
    Nothing,
    /// A task has it. It was not that one's turn, so others need not wait for the first.
    Told {
        /// That is so.
        out_of_turn: bool,
    },
    /// It goes so with this question, which no task waits for.
    Direct(Arc<dyn Hears>, Match),
}

/// Where a question is in a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) id: u16,
    number: u64,
}

/// How a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// How many wait.
    pub(super) waiting: usize,
    /// For how long they have waited without any answer.
    pub(super) quiet: Duration,
    /// Answers so far.
    pub(super) answered: u64,
    /// Nobody will answer.
    pub(super) closed: bool,
}

impl Table {
    /// The number of the question that has waited longest.
    fn oldest(&mut self) -> Option<u64> {
        let Self { asked, order, .. } = self;
        let order = order.as_mut()?;
        while let Some((number, id)) = order.front() {
            if asked.get(id).is_some_and(|asked| asked.number == *number) {
                return Some(*number);
            }
            order.pop_front();
        }
        None
    }
}

impl Waiting {
    /// A table that knows in which order questions came.
    pub(super) fn in_order() -> Self {
        Self(Mutex::new(Table { order: Some(VecDeque::new()), ..Table::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free id for a question section, and where its answer comes.
    ///
    /// # Errors
    /// Too many wait already, or nobody will answer.
    pub(super) fn enter(&self, section: &[u8], strict: bool) -> io::Result<(Entry<'_>, oneshot::Receiver<Heard>)> {
        let (tell, heard) = oneshot::channel();
        let seat = self.take_seat(section, strict, Tell::Task(tell))?;
        Ok((Entry { waiting: self, id: seat.id, seat }, heard))
    }

    /// A free id for a question section that no task waits for. The answer must repeat its spelling.
    ///
    /// # Errors
    /// Too many wait already, or nobody will answer.
    pub(super) fn enter_direct(&self, section: &[u8], direct: Arc<dyn Hears>) -> io::Result<Seat> {
        self.take_seat(section, true, Tell::Direct(direct))
    }

    fn take_seat(&self, section: &[u8], strict: bool, tell: Tell) -> io::Result<Seat> {
        let mut table = self.lock();
        if table.closed {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if table.asked.len() >= MOST {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, format!("{MOST} questions wait for it already")));
        }
        table.count += 1;
        let number = table.count;
        let id = loop {
            let [.., a, b] = random::number().to_be_bytes();
            let id = u16::from_be_bytes([a, b]);
            if !table.asked.contains_key(&id) {
                break id;
            }
        };
        if table.order.is_some() && table.asked.is_empty() {
            table.moved = Some(Instant::now());
        }
        if let Some(order) = &mut table.order {
            order.push_back((number, id));
        }
        table.asked.insert(id, Asked { number, section: section.into(), strict, tell });
        Ok(Seat { id, number })
    }

    /// Gives a message to whoever waits for it.
    pub(super) fn give(&self, message: &[u8]) -> Given {
        let Some(header) = Header::read(message) else { return Given::Nothing };
        let mut table = self.lock();
        let Some(asked) = table.asked.get(&header.id) else { return Given::Nothing };
        let found = match compare(message, &asked.section) {
            Match::Nothing => return Given::Nothing,
            Match::Misspelled if !asked.strict => Match::Answer,
            found => found,
        };
        let number = asked.number;
        let out_of_turn = table.oldest().is_some_and(|oldest| oldest != number);
        table.answered += 1;
        if table.order.is_some() {
            table.moved = Some(Instant::now());
        }
        let asked = table.asked.remove(&header.id);
        drop(table);
        match asked.map(|asked| asked.tell) {
            None => Given::Nothing,
            Some(Tell::Direct(direct)) => Given::Direct(direct, found),
            Some(Tell::Task(tell)) => {
                let heard = if found == Match::Answer { Heard::Answer(message.to_vec()) } else { Heard::Misspelled };
                // Who waited may have given up.
                let _unheard = tell.send(heard);
                Given::Told { out_of_turn }
            }
        }
    }

    /// Those who wait now are told that nobody will answer; these are to be told.
    pub(super) fn fail(&self) -> Vec<Arc<dyn Hears>> {
        let asked = std::mem::take(&mut self.lock().asked);
        let directs = asked.into_values().filter_map(|asked| match asked.tell {
            Tell::Task(_) => None,
            Tell::Direct(direct) => Some(direct),
        });
        directs.collect()
    }

    /// A question is not waited for any more.
    pub(super) fn leave(&self, seat: &Seat) {
        let mut table = self.lock();
        // The id is somebody else's by now, where the answer has come.
        if table.asked.get(&seat.id).is_some_and(|asked| asked.number == seat.number) {
            table.asked.remove(&seat.id);
        }
    }

    /// Nobody will answer, now or later.
    pub(super) fn close(&self) {
        let mut table = self.lock();
        table.closed = true;
        table.asked.clear();
    }

    /// How it is.
    pub(super) fn state(&self) -> State {
        let table = self.lock();
        let quiet = table.moved.filter(|_| !table.asked.is_empty()).map(|moved| moved.elapsed()).unwrap_or_default();
        State { waiting: table.asked.len(), quiet, answered: table.answered, closed: table.closed }
    }
}

/// A place in the table, free again when dropped.
pub(super) struct Entry<'w> {
    waiting: &'w Waiting,
    pub(super) id: u16,
    seat: Seat,
}

impl Entry<'_> {
    /// Whether others were asked before it and still wait.
    pub(super) fn is_behind(&self) -> bool {
        self.waiting.lock().oldest().is_some_and(|oldest| oldest < self.seat.number)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.waiting.leave(&self.seat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question section for `a.` A, and an answer to it.
    const SECTION: [u8; 7] = [1, b'a', 0, 0, 1, 0, 1];

    fn answer(id: u16) -> Vec<u8> {
        [&id.to_be_bytes()[..], &[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0], &SECTION].concat()
    }

    #[test]
    fn who_has_an_answer_takes_nobody_elses_place_with_the_same_id() {
        let waiting = Waiting::default();
        let (first, mut heard_first) = waiting.enter(&SECTION, true).unwrap();
        waiting.give(&answer(first.id));
        // The answer has come, nobody has looked yet, and its id is given out again.
        let (second, mut heard_second) = loop {
            let (entry, heard) = waiting.enter(&SECTION, true).unwrap();
            if entry.id == first.id {
                break (entry, heard);
            }
        };
        assert_eq!(heard_first.try_recv(), Ok(Heard::Answer(answer(first.id))));
        drop(first);
        waiting.give(&answer(second.id));
        assert_eq!(heard_second.try_recv(), Ok(Heard::Answer(answer(second.id))));
        assert!(waiting.lock().asked.is_empty());
        // Who gives up leaves nothing behind.
        drop(waiting.enter(&SECTION, true));
        assert!(waiting.lock().asked.is_empty());
    }

    #[test]
    fn a_full_table_refuses_in_words_and_has_room_again() {
        let waiting = Waiting::in_order();
        let mut entries: Vec<_> = (0..MOST).map(|_| waiting.enter(&SECTION, true).unwrap()).collect();
        let refused = waiting.enter(&SECTION, true).map(drop).unwrap_err();
        assert_eq!(refused.to_string(), "4096 questions wait for it already");
        entries.pop();
        assert!(waiting.enter(&SECTION, true).is_ok());
        waiting.close();
        assert!(waiting.enter(&SECTION, true).is_err(), "nobody enters where nobody answers");
    }

    #[test]
    fn answers_out_of_turn_are_told_from_those_in_turn() {
        let waiting = Waiting::in_order();
        let enter = || waiting.enter(&SECTION, true).unwrap();
        let (one, two, three, four) = (enter(), enter(), enter(), enter());
        assert!(!one.0.is_behind() && two.0.is_behind());
        let is_out_of_turn = |message: &[u8]| matches!(waiting.give(message), Given::Told { out_of_turn: true });
        assert!(!is_out_of_turn(&answer(one.0.id)));
        // Nobody waits for the second any more, so the third is next.
        drop(two);
        assert!(!three.0.is_behind());
        assert!(is_out_of_turn(&answer(four.0.id)), "before the third");
        assert!(!is_out_of_turn(&answer(three.0.id)));
        assert_eq!(waiting.state().waiting, 0);
        assert_eq!(waiting.state().quiet, Duration::ZERO);
    }
}
