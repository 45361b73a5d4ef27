//! How answers are printed: as a table, or as JSON and YAML for programs.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use serde::Serialize;

use super::CliError;

/// The version of what `-o json` and `-o yaml` print: it changes when a field goes or changes its meaning. New fields may come
/// at any time.
const FORMAT: &str = "fairlead/v1";

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For a person
    Table,
    /// The same with more columns and tables
    Wide,
    /// For programs
    Json,
    /// The same as YAML
    Yaml,
}

/// Asking again.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub(super) struct Watch {
    /// Ask again every 2 s, or as often as said, and print what has changed, until interrupted
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600),
    )]
    pub(super) watch: Option<u64>,
}

/// An answer with what it is and the version of its fields.
#[derive(Serialize)]
struct Document<'a, T> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

/// A list as an object, so that it can have a version.
#[derive(Serialize)]
pub(super) struct List<'a, T> {
    pub(super) items: &'a [T],
}

/// An answer as text.
pub(super) fn text<T: Serialize>(
    output: Output,
    kind: &'static str,
    body: &T,
    table: impl FnOnce() -> String,
) -> Result<String, CliError> {
    let document = Document { api_version: FORMAT, kind, body };
    match output {
        Output::Table | Output::Wide => Ok(table()),
        Output::Json => {
            let text = serde_json::to_string_pretty(&document).map_err(|error| CliError::Usage(error.to_string()))?;
            Ok(text + "\n")
        }
        // By way of JSON's values, in which every number and text is what it is in JSON.
        Output::Yaml => {
            let value = serde_json::to_value(&document).map_err(|error| CliError::Usage(error.to_string()))?;
            serde_saphyr::to_string(&value).map_err(|error| CliError::Usage(error.to_string()))
        }
    }
}

/// An answer as a line of JSON, or one document of YAML.
pub(super) fn line<T: Serialize>(output: Output, kind: &'static str, body: &T) -> Result<String, CliError> {
    if output == Output::Yaml {
        return Ok(format!("---\n{}", text(output, kind, body, String::new)?));
    }
    let document = Document { api_version: FORMAT, kind, body };
    serde_json::to_string(&document).map(|text| text + "\n").map_err(|error| CliError::Usage(error.to_string()))
}

/// Prints an answer.
pub(super) fn show<T: Serialize>(
    output: Output,
    kind: &'static str,
    body: &T,
    table: impl FnOnce() -> String,
) -> Result<(), CliError> {
    say(&text(output, kind, body, table)?)
}

/// Prints text.
pub(super) fn say(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever read has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(CliError::Code(0)),
        Err(error) => Err(CliError::Io("can't write", error)),
        Ok(()) => Ok(()),
    }
}

/// What a command prints, and how it ends.
pub(super) type Answered = (String, Result<(), CliError>);

/// Answers once, or again and again: an agent that is away for a while is waited for then.
pub(super) fn answer(
    output: Output,
    watch: Watch,
    mut ask: impl FnMut() -> Result<Answered, CliError>,
) -> Result<(), CliError> {
    let Some(seconds) = watch.watch else {
        let (text, end) = ask()?;
        say(&text)?;
        return end;
    };
    let mut last = String::new();
    loop {
        match ask() {
            Ok((text, _)) if text == last => {}
            Ok((text, _)) => {
                say(&format!("{}{text}", between(output, last.is_empty(), std::io::stdout().is_terminal())))?;
                last = text;
            }
            Err(error) => eprintln!("fairlead: {error}"),
        }
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

/// What stands before an answer that is not the first one.
fn between(output: Output, first: bool, terminal: bool) -> &'static str {
    match output {
        Output::Yaml => "---\n",
        Output::Json => "",
        Output::Table | Output::Wide if terminal => "\u{1b}[H\u{1b}[2J",
        Output::Table | Output::Wide if first => "",
        Output::Table | Output::Wide => "\n",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[derive(Serialize)]
    struct Thing {
        name: &'static str,
        count: u64,
    }

    const THING: Thing = Thing { name: "on", count: 3 };

    #[test]
    fn answers_for_programs_say_what_they_are_and_in_which_version() {
        let said = |output| text(output, "Thing", &THING, || unreachable!()).unwrap();
        let expected = json!({"api_version": "fairlead/v1", "kind": "Thing", "name": "on", "count": 3});
        assert_eq!(serde_json::from_str::<Value>(&said(Output::Json)).unwrap(), expected);
        assert_eq!(serde_saphyr::from_str::<Value>(&said(Output::Yaml)).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Value>(&line(Output::Json, "Thing", &THING).unwrap()).unwrap(), expected);
        assert_eq!(line(Output::Json, "Thing", &THING).unwrap().lines().count(), 1);
        let list = text(Output::Json, "Things", &List { items: &[THING] }, String::new).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&list).unwrap()["items"][0]["count"], 3);
    }

    #[test]
    fn answers_that_are_watched_are_kept_apart() {
        assert_eq!(between(Output::Table, true, false), "");
        assert_eq!(between(Output::Table, false, false), "\n");
        assert!(between(Output::Wide, false, true).contains("[2J"));
        assert_eq!(between(Output::Yaml, true, false), "---\n");
        assert_eq!(between(Output::Json, false, true), "");
    }
}
