//! Work that takes a core for seconds: one at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Lets one piece of work run at a time, and refuses others meanwhile.
#[derive(Debug, Clone)]
pub struct Turn(Arc<Semaphore>);

impl Default for Turn {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turn {
    /// Runs a comparison on a thread of its own. It has its turn until it ends, even if nobody waits for it any more.
    ///
    /// # Errors
    /// Another is running, or it has no answer.
    pub(super) async fn compare<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let Ok(turn) = Arc::clone(&self.0).try_acquire_owned() else {
            return Err(
                "another comparison is running, and an agent runs one at a time: try again when it has finished, or \
                 use --objects"
                    .to_owned(),
            );
        };
        let compared = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        compared.await.unwrap_or_else(|error| Err(format!("the comparison ended without an answer: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn p70_a_second_comparison_is_refused_until_the_first_has_ended() {
        let turn = Turn::default();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (end, ended) = tokio::sync::oneshot::channel();
        let first = turn.clone();
        let asked = tokio::spawn(async move {
            first
                .compare(move || {
                    begin.send(()).unwrap();
                    gone.recv().unwrap();
                    end.send(()).unwrap();
                    Ok(1)
                })
                .await
        });
        begun.await.unwrap();
        let refused = turn.compare(|| Ok(2)).await.unwrap_err();
        assert!(refused.starts_with("another comparison is running"), "{refused}");
        // Who asked has hung up; it runs on.
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
        assert!(turn.compare(|| Ok(3)).await.is_err());
        go.send(()).unwrap();
        ended.await.unwrap();
        let _free = turn.0.acquire().await.unwrap();
    }

    #[tokio::test]
    async fn p70_a_comparison_that_panics_or_fails_makes_room_for_the_next() {
        let turn = Turn::default();
        let failed = turn.compare(|| -> Result<u8, String> { Err("too much".to_owned()) }).await;
        assert_eq!(failed.unwrap_err(), "too much");
        let panicked = turn.compare(|| -> Result<u8, String> { panic!("for a test") }).await;
        assert!(panicked.unwrap_err().starts_with("the comparison ended without an answer"));
        assert_eq!(turn.compare(|| Ok(4)).await, Ok(4));
    }
}
