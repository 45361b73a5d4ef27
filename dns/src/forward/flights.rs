//! Questions that somebody asks already: whoever asks the same gets the same answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::oneshot;

use super::question::Question;
use super::reply::Reply;
use super::terms::ForwardError;

/// What comes of a question.
pub(super) type Flight = Shared<BoxFuture<'static, Result<Arc<Reply>, ForwardError>>>;
type Known = WeakShared<BoxFuture<'static, Result<Arc<Reply>, ForwardError>>>;

/// Hands on what comes of a question to a client.
pub(super) type Lands = Box<dyn FnOnce(Result<Arc<Reply>, ForwardError>) + Send>;

/// A client that waits.
pub(super) trait Client: Send + 'static {
    /// Hands on what has come of its question.
    fn land(self, result: Result<Arc<Reply>, ForwardError>);
}

/// Those that are under way.
#[derive(Default)]
pub(super) struct Flights(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    flights: HashMap<Question, (u64, Known)>,
    count: u64,
    /// Clients whose question no task waits for.
    clients: HashMap<Question, Vec<Lands>>,
}

/// How a client waits.
pub(super) enum Wait<C> {
    /// It is the first with this question, which is to be asked.
    First,
    /// With others.
    Joins,
    /// Not so: there is a flight.
    Flies(C),
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

impl Flights {
    /// Has a client wait for what comes of a question that no task waits for.
    pub(super) fn wait<C: Client>(&self, question: &Question, client: C) -> Wait<C> {
        let mut table = lock(&self.0);
        // It must not end in here: its end locks the table.
        let flight = table.flights.get(question).and_then(|(_, flight)| flight.upgrade());
        if flight.is_some() {
            drop(table);
            return Wait::Flies(client);
        }
        let lands: Lands = Box::new(|result| client.land(result));
        match table.clients.get_mut(question) {
            Some(others) => {
                others.push(lands);
                Wait::Joins
            }
            None => {
                table.clients.insert(question.clone(), vec![lands]);
                Wait::First
            }
        }
    }

    /// A flight that ends with what comes of a question that no task waits for, if there is one.
    pub(super) fn join_clients(&self, question: &Question) -> Option<Flight> {
        let mut table = lock(&self.0);
        let others = table.clients.get_mut(question)?;
        let (tell, heard) = oneshot::channel();
        others.push(Box::new(|result| drop(tell.send(result))));
        drop(table);
        Some(async move { heard.await.unwrap_or(Err(ForwardError::TimedOut)) }.boxed().shared())
    }

    /// Those who wait for what has come of a question. They are not there any more.
    pub(super) fn land(&self, question: &Question) -> Vec<Lands> {
        lock(&self.0).clients.remove(question).unwrap_or_default()
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
