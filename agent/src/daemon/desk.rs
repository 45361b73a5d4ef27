//! Where the node's DNS server is answered: beside the loop, which may be busy for seconds while it plans and carries out.
//!
//! Who answers and the loop take turns. A turn of either is short: the loop compiles and plans outside of its turns, and carries out
//! a plan in pieces. What was said in a turn of the one who answers is handed over in the loop's next one, in order: changes of
//! what pods were told, for the model, and operations, for what the planner knows of the tables.
//!
//! Whoever holds a turn waits for no other lock.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairlead_objects::ObjectKey;
use fairlead_objects::names::{Ask, NameRules, Said};
use nix::time::{ClockId, clock_gettime};
use std::sync::atomic::Ordering;
use tracing::{error, warn};

use crate::apply::{ApplyError, apply};
use crate::bpf::Tables;
use crate::names::{Answer, Change, GRACE, Journal, Names, Told};
use crate::plan::Op;
use crate::plan::policy::{Capacity, Teller, View};

/// Operations or addresses in a turn of the loop.
const PIECE: usize = 32;

/// What the loop may have to take over before answers are refused: addresses and operations. It may be busy for long.
const MOST_HANDED: usize = 1 << 17;

/// Pods by their addresses, with their uids.
pub(super) type Clients = HashMap<IpAddr, (ObjectKey, String)>;

/// What both have a turn at.
pub(super) struct Turn {
    names: Names,
    journal: Option<Journal>,
    /// Lines for the journal, while it is being written anew.
    lines: Option<Vec<Change>>,
    pub(super) teller: Teller,
    clients: Clients,
    /// The rules that were in force last.
    rules: Option<NameRules>,
    handed: Handed,
}

/// What the loop takes over.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// What happened to what pods were told.
    pub(super) changes: Vec<Change>,
    /// What was done to the tables.
    pub(super) ops: Vec<Op>,
    /// The tables can't be written.
    pub(super) failed: Option<ApplyError>,
    /// There was no room for an address.
    pub(super) left_out: bool,
    /// One opens what has ended: everything is to be planned at once.
    pub(super) late: bool,
    /// Addresses of the changes.
    addresses: usize,
}

impl Handed {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.ops.is_empty() && self.failed.is_none() && !self.left_out && !self.late
    }

    /// Whether the loop has too much to take over.
    fn is_full(&self) -> bool {
        self.addresses + self.changes.len() + self.ops.len() > MOST_HANDED
    }
}

/// The desk.
pub(super) struct Desk {
    /// Who comes next: a mutex alone would let the loop take one turn after the other.
    next: Mutex<()>,
    turn: Mutex<Turn>,
    tables: Arc<Tables>,
    told: Arc<Told>,
    /// Wakes the loop.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    /// One at which pods have been told nothing.
    pub(super) fn new(tables: Arc<Tables>, told: Arc<Told>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let turn = Turn {
            names: Names::default(),
            journal: None,
            lines: None,
            teller: Teller::new(Capacity::default()),
            clients: Clients::new(),
            rules: None,
            handed: Handed::default(),
        };
        Self { next: Mutex::default(), turn: Mutex::new(turn), tables, told, wake: Box::new(wake) }
    }

    /// Takes a turn.
    pub(super) fn turn(&self) -> MutexGuard<'_, Turn> {
        let _next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with what pods were told by an agent before, and where that is written down.
    pub(super) fn begin_with(&self, names: &Names, journal: Option<Journal>, clients: Clients) {
        let mut turn = self.turn();
        turn.names.clone_from(names);
        (turn.journal, turn.clients) = (journal, clients);
    }

    /// Answers the DNS server, which does not wait until the loop is woken.
    pub(super) fn answer(&self, ask: &Ask, reply: impl FnOnce(Said)) {
        let mut turn = self.turn();
        let idle = turn.handed.is_empty();
        let said = turn.answer(ask, &self.tables, &self.told);
        self.told.entries.store(turn.names.len(), Ordering::Relaxed);
        self.told.evicted.store(turn.names.evicted(), Ordering::Relaxed);
        let has_news = idle && !turn.handed.is_empty();
        drop(turn);
        reply(said);
        if has_news {
            (self.wake)();
        }
    }

    /// Takes over what was said. `begins`: a plan may begin to be made of it.
    pub(super) fn take_over(&self, begins: bool) -> Handed {
        let mut turn = self.turn();
        if begins {
            turn.teller.mark();
        } else {
            turn.teller.rest();
        }
        std::mem::take(&mut turn.handed)
    }

    /// The pods that there are, after this change.
    pub(super) fn set_clients(&self, clients: Clients, change: Option<Change>) {
        let mut turn = self.turn();
        turn.clients = clients;
        if let Some(change) = change {
            turn.change(change);
        }
    }

    /// The rules that are in force.
    pub(super) fn set_rules(&self, rules: NameRules) {
        self.turn().rules = Some(rules);
    }

    /// Makes a change of what pods were told, and brings into force what comes of it.
    pub(super) fn change(&self, change: Change) {
        let changed = self.turn().change(change);
        self.tell(&changed, false);
    }

    /// A plan is to be carried out.
    ///
    /// # Errors
    /// The tables can't be written.
    pub(super) fn begin(&self, view: View) -> Result<(), ApplyError> {
        let again = self.turn().teller.begin(view);
        self.tell(&again, true);
        self.turn().handed.failed.take().map_or(Ok(()), Err)
    }

    /// Every pod is judged by that plan.
    pub(super) fn judged(&self) {
        self.turn().teller.judged();
    }

    /// A plan is in force.
    pub(super) fn finish(&self) {
        let again = self.turn().teller.finish();
        self.tell(&again, false);
    }

    /// Nobody knows what the tables say.
    pub(super) fn close(&self) {
        let mut turn = self.turn();
        turn.teller.close();
        turn.handed.ops.clear();
    }

    /// Removes rows that nothing leads to, where they are many. The barrier that this takes keeps nobody waiting. Whether there
    /// were any.
    pub(super) fn reclaim(&self) -> bool {
        let retired = {
            let mut turn = self.turn();
            if !turn.teller.is_crowded() {
                return false;
            }
            turn.teller.retire()
        };
        let ops: Vec<Op> = retired.ops().collect();
        let mut result = apply(&mut &*self.tables, &[Op::Barrier]);
        for piece in ops.chunks(PIECE) {
            let mut turn = self.turn();
            result = result.and_then(|()| apply(&mut &*self.tables, piece));
            if result.is_ok() {
                turn.handed.ops.extend_from_slice(piece);
            }
        }
        let mut turn = self.turn();
        match result {
            Ok(()) => turn.teller.retired(&retired),
            Err(error) => turn.failed(error),
        }
        true
    }

    fn tell(&self, addresses: &BTreeSet<IpAddr>, again: bool) {
        let all: Vec<IpAddr> = addresses.iter().copied().collect();
        for piece in all.chunks(PIECE) {
            self.turn().tell(&piece.iter().copied().collect(), Tells { adds: false, again }, &self.tables, &self.told);
        }
    }

    /// Carries out operations of a plan, in pieces. `apply` applies, `applied` takes note of what is in the tables.
    ///
    /// # Errors
    /// What `apply` says.
    pub(super) fn carry_out<E>(
        &self,
        ops: &[Op],
        mut apply: impl FnMut(&[Op]) -> Result<(), E>,
        mut applied: impl FnMut(&Op),
    ) -> Result<(), E> {
        if self.turn().teller.is_quiet() {
            apply(ops)?;
            ops.iter().for_each(applied);
            return Ok(());
        }
        for run in ops.chunk_by(|a, b| !matches!(a, Op::Barrier) && !matches!(b, Op::Barrier)) {
            if let [barrier @ Op::Barrier] = run {
                apply(std::slice::from_ref(barrier))?;
                continue;
            }
            for piece in run.chunks(PIECE) {
                let mut turn = self.turn();
                turn.handed.ops.drain(..).for_each(|op| applied(&op));
                let kept: Vec<Op> = piece.iter().filter(|op| turn.teller.keeps(op)).cloned().collect();
                apply(&kept)?;
                kept.iter().for_each(&mut applied);
            }
        }
        Ok(())
    }

    /// Writes the journal anew, if it is time for that. `names`: what pods were told, with all that was handed over by
    /// `take_over`, which is asked once nothing is written any more.
    pub(super) fn tend(&self, take_over: impl FnOnce(), renew: impl FnOnce(&mut Journal)) {
        let journal = {
            let mut turn = self.turn();
            let is_due = turn.journal.as_ref().is_some_and(Journal::is_due);
            let journal = if is_due { turn.journal.take() } else { None };
            turn.lines = journal.is_some().then(Vec::new);
            journal
        };
        let Some(mut journal) = journal else { return };
        take_over();
        renew(&mut journal);
        let mut turn = self.turn();
        for change in turn.lines.take().into_iter().flatten() {
            note(&mut journal, &change, &turn.names);
        }
        turn.journal = Some(journal);
    }
}

/// How addresses are told.
#[derive(Debug, Clone, Copy)]
struct Tells {
    /// It only adds to what they open.
    adds: bool,
    /// A plan that is to be carried out knows nothing of them.
    again: bool,
}

impl Turn {
    fn answer(&mut self, ask: &Ask, tables: &Tables, told: &Told) -> Said {
        let Some((pod, uid)) = self.clients.get(&ask.client.to_canonical()).cloned() else { return Said::NotCovered };
        let opens = match self.teller.asks(&pod, &ask.name) {
            Some(asks) => asks,
            // Nobody can say what will be in force.
            None if self.covers(ask) => return Said::Refused,
            None => false,
        };
        if !opens && !self.audits(ask) {
            return Said::NotCovered;
        }
        if self.handed.is_full() {
            return Said::Refused;
        }
        let all: BTreeSet<IpAddr> = ask.addresses.iter().map(IpAddr::to_canonical).collect();
        let addresses: BTreeSet<IpAddr> = all.iter().copied().filter(|ip| self.teller.is_outside(*ip)).collect();
        told.inside.fetch_add((all.len() - addresses.len()) as u64, Ordering::Relaxed);
        let time = now();
        let until = time + u64::from(ask.ttl) * 1000 + GRACE;
        let list = addresses.iter().copied().collect();
        let mut gone = self.change(Change::Learn(pod, uid, ask.name.clone(), list, until, time));
        gone.retain(|address| !addresses.contains(address));
        if !gone.is_empty() {
            self.tell(&gone, Tells { adds: false, again: false }, tables, told);
        }
        if !opens {
            // It is only counted.
            Said::NotCovered
        } else if self.tell(&addresses, Tells { adds: true, again: false }, tables, told) {
            Said::InForce
        } else {
            Said::Refused
        }
    }

    /// Whether rules in audit mode are about an answer.
    fn audits(&self, ask: &Ask) -> bool {
        let Some(rules) = &self.rules else { return false };
        let list = rules.audited.get(&ask.client.to_canonical()).and_then(|list| rules.lists.get(*list));
        list.into_iter().flatten().any(|name| name.matches(&ask.name))
    }

    /// Whether the rules that were in force last are about a question.
    fn covers(&self, ask: &Ask) -> bool {
        let Some(rules) = &self.rules else { return true };
        let list = rules.clients.get(&ask.client.to_canonical()).and_then(|list| rules.lists.get(*list));
        list.into_iter().flatten().any(|name| name.matches(&ask.name))
    }

    /// Takes in a change, and writes it down. Gives the addresses of which something changed.
    fn change(&mut self, change: Change) -> BTreeSet<IpAddr> {
        let changed = self.names.take(&change);
        if let Change::Learn(_, _, _, addresses, ..) = &change {
            self.handed.addresses += addresses.len();
            match (&mut self.lines, &mut self.journal) {
                (Some(lines), _) => lines.push(change.clone()),
                (None, Some(journal)) => note(journal, &change, &self.names),
                (None, None) => {}
            }
        }
        self.handed.changes.push(change);
        changed
    }

    /// Brings into force what is known of addresses, and says whether all of it is.
    fn tell(&mut self, addresses: &BTreeSet<IpAddr>, tells: Tells, tables: &Tables, told: &Told) -> bool {
        let tell = if tells.again {
            self.teller.tell_again(&self.names, addresses)
        } else {
            self.teller.tell(&self.names, addresses, tells.adds)
        };
        told.inside.fetch_add(tell.inside.len() as u64, Ordering::Relaxed);
        self.handed.left_out |= !tell.left_out.is_empty() && self.teller.is_open();
        self.handed.late |= tell.late;
        if let Err(error) = apply(&mut &*tables, &tell.ops) {
            error!(%error, "can't bring into force what a pod was told by DNS");
            self.failed(error);
            return false;
        }
        self.handed.ops.extend(tell.ops);
        tell.left_out.is_empty()
    }

    /// The tables can't be written.
    fn failed(&mut self, error: ApplyError) {
        self.teller.close();
        self.handed.failed = Some(error);
    }
}

fn note(journal: &mut Journal, change: &Change, names: &Names) {
    let Change::Learn(pod, uid, name, addresses, until, _) = change else { return };
    if let Err(error) = journal.note(&Answer { pod, uid, name, addresses, until: *until }, names) {
        warn!(%error, "can't write down a name that is in force: a restart would forget it");
    }
}

/// Milliseconds since boot, with those in which the machine slept: answers end meanwhile.
pub(super) fn now() -> u64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return 0 };
    u64::try_from(time.tv_sec()).unwrap_or_default() * 1000
        + u64::try_from(time.tv_nsec()).unwrap_or_default() / 1_000_000
}
