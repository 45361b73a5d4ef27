//! Upstream's specs: which there are, and what became of each, as Ginkgo's JSON report says.

use anyhow::{Context, Result};
use serde::Deserialize;

/// One spec of a report.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spec {
    /// Every text on the way to it, as upstream's own lists have it.
    pub(super) name: String,
    pub(super) state: State,
    /// How long it took.
    pub(super) seconds: f64,
    /// Why it failed, or why it left itself out.
    pub(super) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Passed,
    Failed,
    /// By itself, when it ran: it wants something that this cluster has not.
    LeftOut,
    /// It was not asked for.
    NotRun,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    #[serde(default)]
    spec_reports: Option<Vec<Report>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    #[serde(default)]
    run_time: f64,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

/// Reads a report.
pub(super) fn read(json: &[u8]) -> Result<Vec<Spec>> {
    let suites: Vec<Suite> = serde_json::from_slice(json).context("Ginkgo's report can't be parsed")?;
    let reports = suites.into_iter().flat_map(|suite| suite.spec_reports.unwrap_or_default());
    Ok(reports.filter(|report| report.leaf_node_type == "It").map(spec).collect())
}

fn spec(report: Report) -> Spec {
    let mut texts = report.container_hierarchy_texts.unwrap_or_default();
    texts.push(report.leaf_node_text);
    let message = report.failure.map(|failure| failure.message).unwrap_or_default();
    let state = match report.state.as_str() {
        "passed" => State::Passed,
        // With a reason if it was the spec's own will.
        "skipped" if !message.is_empty() => State::LeftOut,
        "skipped" | "pending" => State::NotRun,
        // Also: panicked, interrupted, aborted, timedout.
        _ => State::Failed,
    };
    Spec { name: texts.join(" "), state, seconds: report.run_time / 1e9, message }
}

/// A regular expression of Go that these names match, and no others.
pub(super) fn focus(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| escape(name)).collect();
    // Ginkgo puts the suite's own description before the name.
    format!("(?:{})$", names.join("|"))
}

fn escape(name: &str) -> String {
    let mut text = String::with_capacity(name.len() * 2);
    for c in name.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let json = br#"[{"SpecReports": [
            {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite", "LeafNodeText": "", "State": "passed"},
            {"ContainerHierarchyTexts": ["[sig-network] DNS"], "LeafNodeType": "It", "LeafNodeText": "should work",
             "State": "failed", "RunTime": 1500000000, "Failure": {"Message": "no answer"}},
            {"ContainerHierarchyTexts": ["[sig-network] A"], "LeafNodeType": "It", "LeafNodeText": "b", "State": "skipped"}
        ]}]"#;
        let specs = read(json).unwrap();
        assert_eq!(specs.len(), 2);
        assert_eq!(
            specs[0],
            Spec {
                name: "[sig-network] DNS should work".to_owned(),
                state: State::Failed,
                seconds: 1.5,
                message: "no answer".to_owned()
            }
        );
        assert_eq!(specs[1].state, State::NotRun);
    }

    #[test]
    fn names_are_taken_literally() {
        assert_eq!(focus(&["[sig-network] a (b)", "c"]), r"(?:\[sig-network\] a \(b\)|c)$");
    }
}
