//! The rows of the behaviour tables that the conversion decides, read from YAML as a source would.

mod cluster_policy;
mod policy;
mod services;

use crate::{Invalid, Object, read_str};

/// The only object of a text, and what is said about pieces of it.
fn one(text: &str) -> (Object, Vec<String>) {
    let mut results = read_str(text).into_iter();
    let object = results.next().expect("an object").expect("a readable object");
    let notes = results.map(|result| {
        let note = result.expect_err("one object");
        assert!(note.piece, "{note}");
        note.reason
    });
    (object, notes.collect())
}

/// The only thing that is wrong with a text.
fn invalid(text: &str) -> Invalid {
    let mut results = read_str(text);
    assert_eq!(results.len(), 1, "{results:?}");
    results.remove(0).expect_err("an unreadable object")
}
