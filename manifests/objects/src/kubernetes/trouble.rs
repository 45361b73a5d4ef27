//! Saying what is wrong, and not too often.

use std::time::{Duration, Instant};

/// Says when something that goes on is worth another line of log.
#[derive(Debug)]
pub(super) struct Often {
    pause: Duration,
    last: Option<Instant>,
}

impl Often {
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, last: None }
    }

    /// Whether it is time.
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= self.pause);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}

/// What is missing where a request is forbidden, and what to do.
#[must_use]
pub fn forbidden(group: &str, resource: &str, verbs: &[&str], message: &str) -> String {
    format!(
        "the API server forbids access to {resource}: {message}; add a rule to the ClusterRole of this service \
         account: apiGroups: [{group:?}], resources: [{resource:?}], verbs: {verbs:?}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forbidden_is_said_with_the_missing_rule() {
        let text = forbidden("discovery.k8s.io", "endpointslices", &["list", "watch"], "no");
        assert!(
            text.contains(
                r#"apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["list", "watch"]"#
            )
        );
    }

    #[test]
    fn the_first_time_is_due_and_the_next_is_after_the_pause() {
        let mut often = Often::new(Duration::from_secs(3600));
        assert!(often.is_due() && !often.is_due());
        let mut always = Often::new(Duration::ZERO);
        assert!(always.is_due() && always.is_due());
    }
}
