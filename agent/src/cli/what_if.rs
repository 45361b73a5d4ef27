//! `fairlead policy what-if`.

use std::io::Read;
use std::path::Path;

use super::args::WhatIfArgs;
use super::show::{Output, say, text};
use super::{CliError, ask, print};
use crate::admin::{PolicyWhatIf, Request, Snapshot};

/// Compares, by the agent or without, and says what it finds.
pub(super) fn run(args: &WhatIfArgs, socket: &Path, output: Output) -> Result<(), CliError> {
    let WhatIfArgs { files, delete, namespace, objects, exit_code } = args;
    let manifests = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let what_if = match objects {
        Some(directory) => {
            offline(directory)?.what_if(&manifests, namespace.as_deref(), *delete).map_err(CliError::Usage)?
        }
        None => ask::<PolicyWhatIf>(
            socket,
            &Request::PolicyWhatIf { manifests, delete: *delete, namespace: namespace.clone() },
        )?,
    };
    say(&text(output, "PolicyWhatIf", &what_if, || print::what_if(&what_if, output == Output::Wide))?)?;
    if *exit_code { verdict(&what_if) } else { Ok(()) }
}

/// The exit code that says what changes. What is incomplete says nothing of what it did not find.
fn verdict(what_if: &PolicyWhatIf) -> Result<(), CliError> {
    if !what_if.incomplete.is_empty() {
        return Err(CliError::Usage(format!("the comparison is incomplete: {}", what_if.incomplete.join("; "))));
    }
    match (what_if.closes.is_empty(), what_if.opens.is_empty()) {
        (true, true) => Ok(()),
        (false, true) => Err(CliError::Code(3)),
        (true, false) => Err(CliError::Code(4)),
        (false, false) => Err(CliError::Code(5)),
    }
}

fn read(file: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text).map(|_| text),
        _ => std::fs::read_to_string(file),
    };
    read.map_err(|error| CliError::Usage(format!("can't read {}: {error}", file.display())))
}

/// The objects of a directory, as an agent with `--objects` reads it.
fn offline(directory: &Path) -> Result<Snapshot, CliError> {
    let files = fairlead_objects::directory::read_dir(directory);
    let files = files.map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(Snapshot::of_files(files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::DifferenceView;

    #[test]
    fn p70_an_exit_code_says_what_changes_and_never_that_of_an_incomplete_comparison() {
        let code = |opens: usize, closes: usize, incomplete: &[&str]| {
            let view = DifferenceView { from: Vec::new(), to: Vec::new(), traffic: Vec::new() };
            let what_if = PolicyWhatIf {
                opens: vec![view.clone(); opens],
                closes: vec![view; closes],
                incomplete: incomplete.iter().map(ToString::to_string).collect(),
                ..PolicyWhatIf::default()
            };
            match verdict(&what_if) {
                Ok(()) => "0".to_owned(),
                Err(CliError::Code(code)) => code.to_string(),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!([code(0, 0, &[]), code(0, 1, &[]), code(1, 0, &[]), code(1, 1, &[])], ["0", "3", "4", "5"]);
        let said = "the comparison is incomplete: no pods; no nodes";
        assert_eq!([code(0, 0, &["no pods", "no nodes"]), code(1, 1, &["no pods", "no nodes"])], [said, said]);
    }
}
