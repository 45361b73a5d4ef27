//! Seats of a server: so many connections at a time. When all are taken, the one that has been waiting for longest without
//! having asked anything gives its seat to the next; when none waits, the next is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The seats.
#[derive(Debug)]
pub(crate) struct Seats {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Numbers of seats and of waits: which came first.
    next: u64,
    taken: BTreeSet<u64>,
    /// Those that wait, by when they began to: whose seat it is, and what tells it to leave.
    waiting: BTreeMap<u64, (u64, oneshot::Sender<Infallible>)>,
}

/// A seat, until it is dropped or given to somebody else.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    /// Its first wait, which begins when it is taken: who has just come has asked nothing.
    first: Mutex<Option<Wait>>,
}

/// A wait: since when, and what ends when the seat is somebody else's.
type Wait = (u64, oneshot::Receiver<Infallible>);

impl Seats {
    /// So many.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default() })
    }

    /// A seat for a connection; nothing while all work.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Seat> {
        let mut state = self.state();
        if state.taken.len() >= self.most {
            let (_, (number, leave)) = state.waiting.pop_first()?;
            state.taken.remove(&number);
            drop(leave);
        }
        let number = state.number();
        state.taken.insert(number);
        let first = Mutex::new(Some(state.wait(number)));
        drop(state);
        Some(Seat { seats: Arc::clone(self), number, first })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn wait(&mut self, number: u64) -> Wait {
        let (leave, left) = oneshot::channel();
        let since = self.number();
        self.waiting.insert(since, (number, leave));
        (since, left)
    }
}

impl Seat {
    /// Waits for something, and may lose the seat meanwhile: then nothing comes of it, and the connection ends.
    pub(crate) async fn wait<F: Future>(&self, something: F) -> Option<F::Output> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (since, left) = first.unwrap_or_else(|| self.seats.state().wait(self.number));
        let output = tokio::select! {
            biased;
            _ = left => None,
            output = something => Some(output),
        };
        // Whoever took the seat has taken this out.
        self.seats.state().waiting.remove(&since)?;
        output
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.seats.state();
        state.taken.remove(&self.number);
        state.waiting.retain(|_, (number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Whether a wait is over, and with what.
    fn poll<T>(wait: &mut std::pin::Pin<Box<impl Future<Output = T>>>) -> Poll<T> {
        wait.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_one_that_waits_for_longest_gives_its_seat_and_who_works_keeps_it() {
        let seats = Seats::new(3);
        let [first, second, working] = [(); 3].map(|()| seats.take().unwrap());
        let work = |seat: &Seat| assert_eq!(poll(&mut Box::pin(seat.wait(ready(5)))), Poll::Ready(Some(5)));
        [&first, &second, &working].into_iter().for_each(work);
        let mut later = Box::pin(first.wait(pending::<()>()));
        let mut earlier = Box::pin(second.wait(pending::<()>()));
        // What counts is since when they wait, not when they came.
        assert_eq!((poll(&mut earlier), poll(&mut later)), (Poll::Pending, Poll::Pending));
        let third = seats.take().unwrap();
        assert_eq!((poll(&mut earlier), poll(&mut later)), (Poll::Ready(None), Poll::Pending));
        let fourth = seats.take().unwrap();
        assert_eq!(poll(&mut later), Poll::Ready(None));
        [&third, &fourth].into_iter().for_each(work);
        assert!(seats.take().is_none(), "all work");
        drop((earlier, later));
        drop((first, second));
        assert!(seats.take().is_none(), "those have no seat any more");
        work(&working);
        drop(working);
        let last = seats.take().unwrap();
        work(&last);
        assert!(seats.take().is_none());
        drop((third, fourth, last));
        let all: Vec<_> = std::iter::from_fn(|| seats.take().inspect(work)).collect();
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn who_has_just_come_has_asked_nothing_and_gives_its_seat() {
        let seats = Seats::new(1);
        let first = seats.take().unwrap();
        let second = seats.take().expect("the first has not begun to wait, and has asked nothing");
        assert_eq!(poll(&mut Box::pin(first.wait(ready(1)))), Poll::Ready(None));
        drop(first);
        assert_eq!(poll(&mut Box::pin(second.wait(ready(2)))), Poll::Ready(Some(2)));
        assert!(seats.take().is_none());
    }

    #[test]
    fn a_wait_that_is_given_up_waits_no_more() {
        let seats = Seats::new(1);
        let seat = seats.take().unwrap();
        let mut wait = Box::pin(seat.wait(pending::<()>()));
        assert_eq!(poll(&mut wait), Poll::Pending);
        drop(wait);
        drop(seat);
        assert!(seats.state().waiting.is_empty() && seats.state().taken.is_empty());
        assert!(seats.take().is_some());
    }
}
