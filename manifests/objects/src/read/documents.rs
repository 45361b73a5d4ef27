//! Splits a text into documents and parses each on its own, so that a broken one leaves the others alone.

use serde_json::Value;

/// Above any real list of objects, below what would exhaust memory: nodes, events and aliases of one document.
const MAX_NODES: usize = 20_000_000;

/// One document of a text.
pub(super) struct Document<'a> {
    text: &'a str,
    /// Lines in front of it.
    line: usize,
}

/// Splits at lines that begin with `---` (YAML 1.2.2, 9.1.4), as `kubectl` does. Documents without content are left out.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let mut begin = (0, 0);
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) {
            documents.push(Document { text: &text[begin.0..offset], line: begin.1 });
            begin = (offset + 3, number);
        }
        offset += line.len();
    }
    documents.push(Document { text: &text[begin.0..], line: begin.1 });
    documents.retain(Document::has_content);
    documents
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

impl Document<'_> {
    /// Whether there is more in it than blank lines, comments, directives and the mark of its end.
    fn has_content(&self) -> bool {
        let is_content = |line: &str| {
            let line = line.trim();
            !(line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "...")
        };
        self.text.lines().any(is_content)
    }

    /// Its values: one, or several where it is JSON with one object after another.
    ///
    /// # Errors
    /// What is wrong with its syntax, and in which line of the whole text.
    pub(super) fn values(&self) -> Result<Vec<Value>, String> {
        if self.text.trim_start().starts_with('{')
            && let Ok(values) = serde_json::Deserializer::from_str(self.text).into_iter().collect()
        {
            return Ok(values);
        }
        self.yaml().map(|value| vec![value])
    }

    fn yaml(&self) -> Result<Value, String> {
        serde_saphyr::from_str_with_options(self.text, options()).map_err(|error| {
            let message = error.without_snippet().to_string();
            // The location is added again below, counted from the start of the text.
            let message = message.lines().next().unwrap_or_default();
            let message = message.split(" at line ").next().unwrap_or_default();
            match error.location() {
                Some(at) => format!(
                    "not YAML: {message} (line {}, column {}); correct its syntax",
                    self.line + usize::try_from(at.line()).unwrap_or(usize::MAX),
                    at.column()
                ),
                None => format!("not YAML: {message}; correct its syntax"),
            }
        })
    }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: MAX_NODES, max_events: MAX_NODES },
        with_snippet: false,
    }
}
