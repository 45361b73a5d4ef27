//! What happens now, for the person who waits for it.

use std::time::{Duration, Instant};

/// A line on standard error: what a command gives may be read by a program.
pub(crate) fn say(text: impl AsRef<str>) {
    eprintln!("=> {}", text.as_ref());
}

/// Says how long something took that a person waited for.
pub(crate) struct Watch(Instant);

impl Watch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn say(&self, text: &str) {
        say(format!("{:>5} s  {text}", seconds(self.0.elapsed())));
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}
