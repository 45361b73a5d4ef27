//! Settings files, read strictly.
//!
//! A setting has one definition, a flag of the command line under the help heading [`HEADING`]: its type, its default,
//! its documentation and the check of its values. The file that `--config` names is YAML with the same settings under
//! the flags' names in camelCase; flags that begin with the name of a group are nested, as `--healthz-bind` is
//!
//! ```yaml
//! healthz:
//!   bind: 0.0.0.0:10256
//! ```
//!
//! A flag whose value is named `JSON` takes an object, as text in JSON, and the file has it as it is.
//!
//! What the command line or the environment gives wins over the file, the file over defaults. A key that no flag has is
//! an error, and so is a value that the flag would refuse.
#![forbid(unsafe_code)]

mod error;
mod file;
mod keys;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Parser};

pub use error::SettingsError;
use keys::Setting;

/// The help heading of those flags that a file may have too.
pub const HEADING: &str = "Settings (also in the file; flags take precedence)";

/// The name of the flag with the file's path.
const CONFIG: &str = "config";

/// Parses the command line of this process, and the settings file that it names. What is wrong with the command line
/// itself ends the process, as clap does it.
///
/// # Errors
/// The file can't be read, or something in it is wrong: see [`parse_from`].
pub fn parse<P: Parser>(groups: &[&str]) -> Result<P, SettingsError> {
    match parse_from(std::env::args_os(), groups) {
        Err(SettingsError::CommandLine(error)) => error.exit(),
        other => other,
    }
}

/// Parses a command line, and the settings file that it names. `groups` are the keys that have keys below them.
///
/// # Errors
/// The command line is wrong, the file can't be read, or a key or a value in it is wrong. The text names the file, each
/// wrong key, its value and what is allowed.
pub fn parse_from<P: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
    groups: &[&str],
) -> Result<P, SettingsError> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut command = P::command();
    let mut matches = command.try_get_matches_from_mut(&arguments)?;
    if let Some((path, settings)) = settings_of(&command, &matches, groups) {
        let (text, settings) = (file::read(&path)?, settings);
        let known: Vec<&Setting> = settings.iter().map(|(setting, _)| setting).collect();
        let values = file::values(&text, &known, groups).map_err(|wrong| wrong.at(&path))?;
        let mut wrong = Vec::new();
        let mut added = Vec::new();
        for (key, value) in values {
            let given = settings.iter().any(|(setting, given)| setting.key == key && *given);
            let flags = known.iter().find(|setting| setting.key == key).map(|setting| setting.flags(&value));
            match flags.unwrap_or_else(|| Ok(Vec::new())) {
                Ok(_) if given => {}
                Ok(flags) => {
                    // Each alone, so that every wrong value is named, and which one it is.
                    let alone = arguments.iter().cloned().chain(flags.iter().cloned());
                    match command.try_get_matches_from_mut(alone) {
                        Ok(_) => added.extend(flags),
                        Err(error) => wrong.push(error::value(&key, &value, &error)),
                    }
                }
                Err(reason) => wrong.push(format!("{key}: {reason}")),
            }
        }
        if !wrong.is_empty() {
            return Err(SettingsError::Wrong { path, wrong: wrong.join("; ") });
        }
        arguments.extend(added);
        matches = command.try_get_matches_from_mut(arguments)?;
    }
    Ok(P::from_arg_matches(&matches)?)
}

/// The file that a command line names, and the settings that it may have, with whether the command line gives them.
fn settings_of(command: &Command, matches: &ArgMatches, groups: &[&str]) -> Option<(PathBuf, Vec<(Setting, bool)>)> {
    let (mut command, mut matches) = (command, matches);
    while let Some((name, below)) = matches.subcommand() {
        command = command.find_subcommand(name)?;
        matches = below;
    }
    // A command without such a flag has no settings.
    let path = matches.try_get_one::<PathBuf>(CONFIG).ok().flatten()?.clone();
    let given =
        |id: &str| matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
    let flags = command.get_arguments().filter(|arg| arg.get_help_heading() == Some(HEADING));
    let settings = flags.filter_map(|arg| Some((Setting::new(arg, groups)?, given(arg.get_id().as_str()))));
    Some((path, settings.collect()))
}

#[cfg(test)]
mod tests;
