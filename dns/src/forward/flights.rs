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
    clients: HashMap<Question, Clients>,
}

/// Clients whose question no task waits for.
struct Clients {
    lands: Vec<Lands>,
    /// The flight of those among them that have a task each: one, however many come and go.
    flight: Option<Flight>,
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
                others.lands.push(lands);
                Wait::Joins
            }
            None => {
                table.clients.insert(question.clone(), Clients { lands: vec![lands], flight: None });
                Wait::First
            }
        }
    }

    /// A flight that ends with what comes of a question that no task waits for, if there is one.
    pub(super) fn join_clients(&self, question: &Question) -> Option<Flight> {
        let mut table = lock(&self.0);
        let others = table.clients.get_mut(question)?;
        if let Some(flight) = &others.flight {
            return Some(flight.clone());
        }
        let (tell, heard) = oneshot::channel();
        others.lands.push(Box::new(|result| drop(tell.send(result))));
        let flight = async move { heard.await.unwrap_or(Err(ForwardError::TimedOut)) }.boxed().shared();
        others.flight = Some(flight.clone());
        Some(flight)
    }

    /// Those who wait for what has come of a question. They are not there any more.
    pub(super) fn land(&self, question: &Question) -> Vec<Lands> {
        lock(&self.0).clients.remove(question).map(|clients| clients.lands).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hickory_proto::op::ResponseCode;

    use super::*;
    use crate::forward::Wants;
    use crate::wire::RecordType;

    struct Counted(Arc<AtomicUsize>);

    impl Client for Counted {
        fn land(self, _: Result<Arc<Reply>, ForwardError>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn clients_that_have_given_up_take_no_memory_until_the_answer_comes() {
        let (flights, count) = (Flights::default(), Arc::new(AtomicUsize::new(0)));
        let question = Question::new(b"\x07example\x00", RecordType::A, Wants::default());
        let client = || Counted(Arc::clone(&count));
        assert!(flights.join_clients(&question).is_none());
        assert!(matches!(flights.wait(&question, client()), Wait::First));
        let first = flights.join_clients(&question).unwrap();
        for _ in 0..10_000 {
            // Somebody waits for a moment.
            let mut flight = flights.join_clients(&question).unwrap();
            assert!(futures::poll!(&mut flight).is_pending());
        }
        assert!(matches!(flights.wait(&question, client()), Wait::Joins));
        let lands = flights.land(&question);
        assert_eq!(lands.len(), 3);
        let reply = Arc::new(Reply::empty(ResponseCode::NoError, &question).unwrap());
        lands.into_iter().for_each(|land| land(Ok(Arc::clone(&reply))));
        assert!(Arc::ptr_eq(&first.await.unwrap(), &reply), "who has waited longest has it too");
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
