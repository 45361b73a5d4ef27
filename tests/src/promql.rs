//! What a query of Prometheus asks for: as much of PromQL as tells which metrics and labels have to be there.

use std::collections::BTreeSet;

/// What a query asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Each metric that it names, as often as it does.
    pub selectors: Vec<Selector>,
    /// Labels that it groups or joins by.
    pub grouping: BTreeSet<String>,
}

/// A metric and what its labels must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// The metric's name.
    pub name: String,
    /// Its matchers.
    pub matchers: Vec<Matcher>,
}

/// A condition on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// The label.
    pub label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub operator: String,
    /// What it is compared with.
    pub value: String,
}

/// Operators that aggregate: labels may follow in front of their arguments.
const AGGREGATIONS: [&str; 9] = ["avg", "bottomk", "count", "group", "max", "min", "quantile", "sum", "topk"];
/// Functions that are known: a name that is misspelt is none of them.
const FUNCTIONS: [&str; 14] = [
    "absent",
    "avg_over_time",
    "changes",
    "clamp_max",
    "clamp_min",
    "delta",
    "histogram_quantile",
    "increase",
    "irate",
    "label_replace",
    "max_over_time",
    "rate",
    "time",
    "vector",
];
/// Words with labels behind them.
const GROUPING: [&str; 6] = ["by", "group_left", "group_right", "ignoring", "on", "without"];
/// Words between expressions.
const OPERATORS: [&str; 7] = ["and", "atan2", "bool", "inf", "offset", "or", "unless"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Mark(String),
}

/// Reads a query.
///
/// # Errors
/// It is none that is understood here, and why.
pub fn read(text: &str) -> Result<Query, String> {
    let tokens = tokens(text)?;
    let mut reader = Reader { rest: &tokens, query: Query::default(), open: Vec::new() };
    while !reader.rest.is_empty() {
        reader.step()?;
    }
    match reader.open.pop() {
        None => Ok(reader.query),
        Some(open) => Err(format!("{open} is not closed")),
    }
}

struct Reader<'a> {
    rest: &'a [Token],
    query: Query,
    open: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn is_mark(&self, mark: &str) -> bool {
        matches!(self.rest.first(), Some(Token::Mark(found)) if found == mark)
    }

    fn step(&mut self) -> Result<(), String> {
        match self.next() {
            Some(Token::Word(word)) => self.word(word),
            Some(Token::Text(_)) | None => Ok(()),
            Some(Token::Mark(mark)) => match mark.as_str() {
                "(" => {
                    self.open.push("(");
                    Ok(())
                }
                ")" => self.open.pop().map(drop).ok_or_else(|| ") closes nothing".to_owned()),
                "[" => self.range(),
                "{" => Err("a selector without a name".to_owned()),
                "]" | "}" | "=" | "=~" | "!~" => Err(format!("{mark} is out of place")),
                _ => Ok(()),
            },
        }
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if GROUPING.contains(&word) {
            return if self.is_mark("(") { self.labels() } else { Ok(()) };
        }
        if OPERATORS.contains(&word) || word.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return Ok(());
        }
        let is_grouped = matches!(self.rest.first(), Some(Token::Word(next)) if GROUPING.contains(&next.as_str()));
        if AGGREGATIONS.contains(&word) && (is_grouped || self.is_mark("(")) {
            return Ok(());
        }
        if self.is_mark("(") {
            return if FUNCTIONS.contains(&word) {
                Ok(())
            } else {
                Err(format!("{word} is no function that is known"))
            };
        }
        let matchers = if self.is_mark("{") { self.matchers()? } else { Vec::new() };
        self.query.selectors.push(Selector { name: word.to_owned(), matchers });
        Ok(())
    }

    fn labels(&mut self) -> Result<(), String> {
        self.next();
        loop {
            match self.next() {
                Some(Token::Word(label)) => drop(self.query.grouping.insert(label.clone())),
                Some(Token::Mark(mark)) if mark == "," => {}
                Some(Token::Mark(mark)) if mark == ")" => return Ok(()),
                other => return Err(format!("{other:?} among labels")),
            }
        }
    }

    fn matchers(&mut self) -> Result<Vec<Matcher>, String> {
        self.next();
        let mut matchers = Vec::new();
        loop {
            match self.next() {
                Some(Token::Mark(mark)) if mark == "}" => return Ok(matchers),
                Some(Token::Mark(mark)) if mark == "," => {}
                Some(Token::Word(label)) => match (self.next(), self.next()) {
                    (Some(Token::Mark(operator)), Some(Token::Text(value)))
                        if ["=", "!=", "=~", "!~"].contains(&operator.as_str()) =>
                    {
                        matchers.push(Matcher {
                            label: label.clone(),
                            operator: operator.clone(),
                            value: value.clone(),
                        });
                    }
                    other => return Err(format!("{other:?} behind label {label}")),
                },
                other => return Err(format!("{other:?} among matchers")),
            }
        }
    }

    fn range(&mut self) -> Result<(), String> {
        match (self.next(), self.next()) {
            (Some(Token::Word(_)), Some(Token::Mark(mark))) if mark == "]" => Ok(()),
            other => Err(format!("{other:?} for a range")),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '$');
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            c if c.is_whitespace() => c.len_utf8(),
            c if is_word(c) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                found.push(Token::Word(rest[..length].to_owned()));
                length
            }
            '"' | '\'' | '`' => {
                let (value, length) = quoted(rest, first)?;
                found.push(Token::Text(value));
                length
            }
            _ => {
                let length =
                    if ["=~", "!~", "!=", "==", ">=", "<="].iter().any(|two| rest.starts_with(two)) { 2 } else { 1 };
                let mark = rest.get(..length).filter(|mark| "(){}[],=!~<>+-*/%^".contains(&mark[..1]));
                found.push(Token::Mark(mark.ok_or_else(|| format!("{first:?} is out of place"))?.to_owned()));
                length
            }
        };
        rest = &rest[taken..];
    }
    Ok(found)
}

/// A text in quotes, and how much of the query it is.
fn quoted(rest: &str, quote: char) -> Result<(String, usize), String> {
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' if quote != '`' => escaped = true,
            _ if c == quote => return Ok((value, at + 1)),
            _ => value.push(c),
        }
    }
    Err("a text without an end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        read(text)
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .selectors
            .into_iter()
            .map(|found| found.name)
            .collect()
    }

    #[test]
    fn metrics_are_told_from_functions_labels_and_operators() {
        for (text, expected) in [
            ("up", &["up"][..]),
            ("sum(up{job=\"kube-proxy\"})", &["up"]),
            (
                "count(up{job=\"x\"} == 1) < count(kube_node_info) or absent(up{job=\"x\"} == 1)",
                &["up", "kube_node_info", "up"],
            ),
            ("max by (table) (a_entries / on (instance, table) a_capacity)", &["a_entries", "a_capacity"]),
            ("histogram_quantile(0.99, sum by (le, node) (rate(d_bucket[$__rate_interval])))", &["d_bucket"]),
            ("sum without (pod) (x) / ignoring(y) group_left x offset 5m", &["x", "x"]),
            ("increase(f:recorded:rate5m[15m]) > 3e5", &["f:recorded:rate5m"]),
            ("(time() - start) > 600 and on () count(up)", &["start", "up"]),
            // A metric may have the name of an aggregation.
            ("group + sum", &["group", "sum"]),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
    }

    #[test]
    fn labels_are_told_with_what_they_must_be() {
        let query = read(r#"sum by (reason) (rate(drops{reason=~"a|b{2}", pod!='x\'y', le="+Inf"}[5m]))"#).unwrap();
        assert_eq!(query.grouping, BTreeSet::from(["reason".to_owned()]));
        let matchers: Vec<_> = query.selectors[0]
            .matchers
            .iter()
            .map(|m| (m.label.as_str(), m.operator.as_str(), m.value.as_str()))
            .collect();
        assert_eq!(matchers, [("reason", "=~", "a|b{2}"), ("pod", "!=", "x'y"), ("le", "=", "+Inf")]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in
            ["rte(x[5m])", "sum(x", "x)", "x{a=b}", "x{a=\"b\"", "{a=\"b\"}", "x[5m", "x{\"a\"}", "x # y", "x{a=\"b}"]
        {
            assert!(read(wrong).is_err(), "{wrong}: {:?}", read(wrong));
        }
    }
}
