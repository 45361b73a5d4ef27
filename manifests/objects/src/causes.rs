//! Errors in words.

use std::error::Error;

/// An error with its causes, which say what it is about. One that the text before it names already is not said again.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
        next = error.source();
    }
    text
}
