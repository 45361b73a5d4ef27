//! Questions that were sent and that no task waits for, the oldest first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One of them.
pub(super) trait OnItsWay: Send + Sync {
    /// Whether it has been answered, or a task goes on with it.
    fn is_settled(&self) -> bool;

    /// When it was sent.
    fn asked(&self) -> Instant;

    /// It has waited too long.
    fn is_overdue(self: Arc<Self>);
}

/// All of them. Some are answered.
#[derive(Default)]
pub(super) struct Sent {
    queue: Mutex<VecDeque<Arc<dyn OnItsWay>>>,
    /// A task looks who waits too long.
    looking: AtomicBool,
}

impl Sent {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<dyn OnItsWay>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more was sent.
    pub(super) fn push(&self, question: Arc<dyn OnItsWay>) {
        self.lock().push_back(question);
    }

    /// Whether a task has to begin that looks who waits too long.
    pub(super) fn begins(&self) -> bool {
        !self.looking.swap(true, Ordering::SeqCst)
    }

    /// Whether the task that looks has nothing left to do.
    pub(super) fn is_over(&self) -> bool {
        if !self.lock().is_empty() {
            return false;
        }
        self.looking.store(false, Ordering::SeqCst);
        // Somebody may have come in between, and seen that there is a task.
        self.lock().is_empty() || self.looking.swap(true, Ordering::SeqCst)
    }

    /// The next that has waited so long; those in front of it are answered.
    pub(super) fn overdue(&self, patience: Duration) -> Option<Arc<dyn OnItsWay>> {
        let mut queue = self.lock();
        while let Some(question) = queue.front() {
            if !question.is_settled() {
                return if question.asked().elapsed() >= patience { queue.pop_front() } else { None };
            }
            queue.pop_front();
        }
        None
    }
}
