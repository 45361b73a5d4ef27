//! From environment and standard input to what is printed.

use std::io;

use serde_json::{Map, Value, json};

use crate::conf::{NetConf, decode, version};
use crate::verbs;
use crate::{Env, Error, Version};

/// What the process answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output; empty where the verb has no result.
    pub stdout: String,
    /// Whether to exit with 0.
    pub success: bool,
}

impl Outcome {
    /// Standard input can't be read.
    #[must_use]
    pub fn unreadable_input(source: io::Error) -> Self {
        let error = Error::Io { what: "can't read the network configuration from standard input".to_owned(), source };
        Self::failure(Version::V1_1_0.as_str(), &error)
    }

    fn failure(version: &str, error: &Error) -> Self {
        let mut body = json!({"cniVersion": version, "code": error.code(), "msg": error.to_string()});
        if !error.details().is_empty() {
            body["details"] = error.details().into();
        }
        Self { stdout: format!("{body}\n"), success: false }
    }
}

/// Runs one verb. `get` reads an environment variable.
pub fn run(get: impl Fn(&str) -> Option<String>, input: &[u8]) -> Outcome {
    // An error is told in the version of the request, where that can be read.
    let decoded = if input.iter().all(u8::is_ascii_whitespace) { Ok(Map::new()) } else { decode(input) };
    let spoken = decoded.as_ref().ok().and_then(|object| version(object).ok()).unwrap_or(Version::V1_1_0);
    match Env::parse(get).and_then(|env| execute(env, &decoded?)) {
        Ok(None) => Outcome { stdout: String::new(), success: true },
        Ok(Some(result)) => Outcome { stdout: format!("{result}\n"), success: true },
        Err(error) => Outcome::failure(spoken.as_str(), &error),
    }
}

fn execute(env: Env, object: &Map<String, Value>) -> Result<Option<Value>, Error> {
    if env == Env::Version {
        return verbs::version(object).map(Some);
    }
    let conf = NetConf::parse(object)?;
    conf.require_name()?;
    match env {
        Env::Version => Ok(None),
        Env::Add { attachment, netns, pod, allow_own_netns } => {
            verbs::add(&conf, &attachment, &netns, pod, allow_own_netns).map(Some)
        }
        Env::Del { attachment } => verbs::del(&conf, &attachment).map(|()| None),
        Env::Check { attachment, netns } => verbs::check(&conf, &attachment, &netns).map(|()| None),
        Env::Status => verbs::status(&conf).map(|()| None),
        Env::Gc => verbs::gc(&conf).map(|()| None),
    }
}
