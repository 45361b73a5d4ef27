//! Questions that somebody asks already: whoever asks the same gets the same answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

use super::question::Question;
use super::reply::Reply;
use super::{ForwardError, Forwarder};

/// What comes of a question.
pub(super) type Flight = Shared<BoxFuture<'static, Result<Arc<Reply>, ForwardError>>>;
type Known = WeakShared<BoxFuture<'static, Result<Arc<Reply>, ForwardError>>>;

/// Those that are under way.
#[derive(Default)]
pub(super) struct Flights(Mutex<Table>);

#[derive(Default)]
struct Table {
    flights: HashMap<Question, (u64, Known)>,
    count: u64,
}

impl Flights {
    /// The flight with this question. It goes on for as long as somebody waits for it.
    pub(super) fn join(&self, forwarder: &Arc<Forwarder>, question: &Question, client: IpAddr) -> Flight {
        let mut table = self.lock();
        if let Some(flight) = table.flights.get(question).and_then(|(_, flight)| flight.upgrade()) {
            return flight;
        }
        table.count += 1;
        let landing = Landing { forwarder: Arc::clone(forwarder), question: question.clone(), number: table.count };
        let flight = async move { landing.forwarder.fly(&landing.question, client).await }.boxed().shared();
        if let Some(known) = flight.downgrade() {
            let number = table.count;
            table.flights.insert(question.clone(), (number, known));
        }
        flight
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a flight off the table when it has ended, or nobody waits for it.
struct Landing {
    forwarder: Arc<Forwarder>,
    question: Question,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut table = self.forwarder.flights.lock();
        if table.flights.get(&self.question).is_some_and(|(number, _)| *number == self.number) {
            table.flights.remove(&self.question);
        }
    }
}
