//! Questions that somebody asks already: whoever asks the same gets the same answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

use super::question::Question;
use super::reply::Reply;
use super::terms::ForwardError;

/// What comes of a question.
pub(super) type Flight = Shared<BoxFuture<'static, Result<Arc<Reply>, ForwardError>>>;
type Known = WeakShared<BoxFuture<'static, Result<Arc<Reply>, ForwardError>>>;

/// Those that are under way.
#[derive(Default)]
pub(super) struct Flights(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    flights: HashMap<Question, (u64, Known)>,
    count: u64,
}

impl Flights {
    /// The flight with this question. It goes on for as long as somebody waits for it.
    pub(super) fn join<F>(&self, question: &Question, fly: impl FnOnce() -> F) -> Flight
    where
        F: Future<Output = Result<Arc<Reply>, ForwardError>> + Send + 'static,
    {
        let mut table = lock(&self.0);
        if let Some(flight) = table.flights.get(question).and_then(|(_, flight)| flight.upgrade()) {
            return flight;
        }
        table.count += 1;
        let landing = Landing { table: Arc::clone(&self.0), question: question.clone(), number: table.count };
        let flying = fly();
        let flight = async move {
            let _landing = landing;
            flying.await
        };
        let flight = flight.boxed().shared();
        if let Some(known) = flight.downgrade() {
            let number = table.count;
            table.flights.insert(question.clone(), (number, known));
        }
        flight
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a flight off the table when it has ended, or nobody waits for it.
struct Landing {
    table: Arc<Mutex<Table>>,
    question: Question,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        if table.flights.get(&self.question).is_some_and(|(number, _)| *number == self.number) {
            table.flights.remove(&self.question);
        }
    }
}
