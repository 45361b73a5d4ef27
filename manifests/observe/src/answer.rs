//! What is answered.

use std::fmt::Display;

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Headers beside those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Text for a person.
    pub fn text(status: u16, body: impl Display) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.to_string())
    }

    /// JSON, with the headers that Kubernetes' own proxy gives it.
    #[must_use]
    pub fn json(status: u16, body: String) -> Self {
        Self::new(status, "application/json", body).with("X-Content-Type-Options", "nosniff")
    }

    /// What the path names is not here.
    #[must_use]
    pub fn not_found() -> Self {
        Self::text(404, "404 page not found\n")
    }

    /// A body of this type.
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: String) -> Self {
        Self { status, headers: vec![("Content-Type", content_type.to_owned())], body }
    }

    /// One more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}
