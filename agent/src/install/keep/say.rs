//! What is said of what was put right and of what could not be: each thing once, and again after a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Looked;

/// How long the same repair is only counted.
const REPAIRED: Duration = Duration::from_secs(60);

/// How long the same failure is not said again.
const FAILING: Duration = Duration::from_secs(600);

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// A repair or a failure.
    Warn(String),
    /// All is well again.
    Info(String),
}

/// What was last said of a thing.
#[derive(Debug, Default)]
struct Last {
    /// Whether anything has come of a look already: the first one installs.
    looked: bool,
    repaired: Option<(Instant, String)>,
    /// Repairs that were not said.
    silent: u32,
    failing: Option<(Instant, String)>,
}

/// What was last said.
#[derive(Debug, Default)]
pub(super) struct Speaker(BTreeMap<&'static str, Last>);

impl Speaker {
    /// The line to be logged for what came of a look, if any.
    pub(super) fn hear(&mut self, now: Instant, thing: &'static str, looked: Looked) -> Option<Said> {
        let last = self.0.entry(thing).or_default();
        let is_first = !std::mem::replace(&mut last.looked, true);
        match looked {
            Ok(None) => last.failing.take().map(|_| Said::Info(format!("{thing}: as it should be again"))),
            Ok(Some(what)) if is_first => Some(Said::Info(format!("{thing}: {what}"))),
            Ok(Some(what)) => {
                last.failing = None;
                if last.repaired.as_ref().is_some_and(|(before, text)| *text == what && now < *before + REPAIRED) {
                    last.silent = last.silent.saturating_add(1);
                    return None;
                }
                last.repaired = Some((now, what.clone()));
                let more = match std::mem::take(&mut last.silent) {
                    0 => String::new(),
                    silent => format!(" ({silent} more times since this was last said: what undoes it on this node?)"),
                };
                Some(Said::Warn(format!("{thing}, put right: {what}{more}")))
            }
            Err(why) => {
                let is_said = last.failing.as_ref().is_some_and(|(at, text)| *text == why && now < *at + FAILING);
                if is_said {
                    return None;
                }
                last.failing = Some((now, why.clone()));
                Some(Said::Warn(format!("{thing}: {why}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_said_once_and_again_after_a_while() {
        let (mut speaker, begin) = (Speaker::default(), Instant::now());
        let mut at = |seconds, looked: Looked| speaker.hear(begin + Duration::from_secs(seconds), "thing", looked);
        let repaired = || Ok(Some("back".to_owned()));
        let warn = |text: &str| Some(Said::Warn(text.to_owned()));
        assert_eq!(at(0, Ok(None)), None);
        assert_eq!(at(1, repaired()), warn("thing, put right: back"));
        assert_eq!((at(2, repaired()), at(60, repaired())), (None, None));
        let again = at(61, repaired());
        assert!(matches!(&again, Some(Said::Warn(text)) if text.contains("2 more times")), "{again:?}");
        let other = at(61, Ok(Some("other".to_owned())));
        assert_eq!(other, warn("thing, put right: other"));
        assert_eq!(at(62, Err("no".to_owned())), warn("thing: no"));
        assert_eq!(at(63, Err("no".to_owned())), None);
        assert_eq!(at(64, Err("never".to_owned())), warn("thing: never"));
        assert_eq!(at(663, Err("never".to_owned())), None);
        assert_eq!(at(664, Err("never".to_owned())), warn("thing: never"));
        assert_eq!(at(665, Ok(None)), Some(Said::Info("thing: as it should be again".to_owned())));
        assert_eq!(at(666, Ok(None)), None);
    }

    #[test]
    fn one_thing_does_not_silence_another() {
        let (mut speaker, now) = (Speaker::default(), Instant::now());
        for thing in ["one", "other"] {
            assert_eq!(speaker.hear(now, thing, Ok(None)), None);
            assert!(matches!(speaker.hear(now, thing, Ok(Some("back".to_owned()))), Some(Said::Warn(_))));
        }
    }

    #[test]
    fn what_the_first_look_does_is_no_repair() {
        let (mut speaker, now) = (Speaker::default(), Instant::now());
        let installed = speaker.hear(now, "thing", Ok(Some("written".to_owned())));
        assert_eq!(installed, Some(Said::Info("thing: written".to_owned())));
        assert!(matches!(speaker.hear(now, "thing", Ok(Some("written".to_owned()))), Some(Said::Warn(_))));
        assert!(matches!(speaker.hear(now, "other", Err("no".to_owned())), Some(Said::Warn(_))));
    }
}
