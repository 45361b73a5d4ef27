//! From text to words.
//!
//! Words stand between spaces; one that begins with a double quote goes on to the next, over spaces and ends of lines,
//! and `\"` in it is a quote. A `#` outside of quotes begins a comment, which the end of the line ends.

use std::sync::Arc;

use super::syntax::{Mistake, Place, Word};
use crate::files::Files;

/// The words of a text, with the environment's values in place.
pub(super) fn words(file: &Arc<str>, text: &str, files: &dyn Files) -> Result<Vec<Word>, Mistake> {
    let mut words: Vec<Word> = Vec::new();
    let mut chars = text.chars().peekable();
    let (mut line, mut starts_line) = (1, true);
    while let Some(&next) = chars.peek() {
        if next == '\n' {
            (line, starts_line) = (line + 1, true);
            chars.next();
        } else if next.is_whitespace() {
            chars.next();
        } else if next == '#' {
            while chars.next_if(|c| *c != '\n').is_some() {}
        } else {
            let place = Place { file: Arc::clone(file), line };
            let quoted = chars.next_if_eq(&'"').is_some();
            let text = if quoted {
                let wrong =
                    || Mistake { place: place.clone(), text: "this quote is never closed: add a \"".to_owned() };
                let mut text = String::new();
                loop {
                    match chars.next().ok_or_else(wrong)? {
                        '"' => break,
                        '\\' if chars.next_if_eq(&'"').is_some() => text.push('"'),
                        c => {
                            line += usize::from(c == '\n');
                            text.push(c);
                        }
                    }
                }
                text
            } else {
                let mut text = String::new();
                while let Some(c) = chars.next_if(|c| !c.is_whitespace() && *c != '#') {
                    text.push(c);
                }
                text
            };
            let text = environment(&text, files);
            words.push(Word { text, place, starts_line, quoted });
            starts_line = false;
        }
    }
    Ok(words)
}

/// A text with values of the environment for `{$NAME}` and `{%NAME%}`; what is not set is empty.
fn environment(text: &str, files: &dyn Files) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let end = match after.chars().next() {
            Some('$') => "}",
            Some('%') => "%}",
            _ => "",
        };
        let name = after.get(1..).filter(|_| !end.is_empty()).and_then(|text| text.split_once(end));
        out.push_str(before);
        match name.filter(|(name, _)| !name.is_empty() && !name.contains('{')) {
            Some((name, after)) => {
                out.push_str(&files.variable(name).unwrap_or_default());
                rest = after;
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out + rest
}
