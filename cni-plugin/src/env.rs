//! The environment: `CNI_*` variables, read strictly, with no other input than what is passed in.

use crate::Error;
use crate::protocol::{Attachment, PodRef};

/// What the runtime wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Make the interface.
    Add,
    /// Remove it.
    Del,
    /// See that it is still as ADD left it.
    Check,
    /// Say which versions are served.
    Version,
    /// Say whether an ADD could be served.
    Status,
    /// Remove what is no longer in use.
    Gc,
}

impl Command {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "VERSION" => Self::Version,
            "STATUS" => Self::Status,
            "GC" => Self::Gc,
            _ => return None,
        })
    }
}

/// The variables that a command needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Env {
    /// ADD
    Add {
        /// `CNI_CONTAINERID` and `CNI_IFNAME`
        attachment: Attachment,
        /// `CNI_NETNS`
        netns: String,
        /// `K8S_POD_*` of `CNI_ARGS`
        pod: PodRef,
        /// `CNI_NETNS_OVERRIDE`: the namespace may be the plugin's own.
        allow_own_netns: bool,
    },
    /// DEL. `CNI_NETNS` is not needed: the host side tells all.
    Del {
        /// `CNI_CONTAINERID` and `CNI_IFNAME`
        attachment: Attachment,
    },
    /// CHECK
    Check {
        /// `CNI_CONTAINERID` and `CNI_IFNAME`
        attachment: Attachment,
        /// `CNI_NETNS`
        netns: String,
    },
    /// VERSION
    Version,
    /// STATUS
    Status,
    /// GC
    Gc,
}

impl Env {
    /// Reads the environment through `get`.
    ///
    /// # Errors
    /// Code 4; the text names the variable.
    pub fn parse(get: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let command = required(&get, "CNI_COMMAND")?;
        let command = Command::parse(&command).ok_or_else(|| {
            invalid("CNI_COMMAND", format!("{command:?} is not one of ADD, DEL, CHECK, STATUS, GC, VERSION"))
        })?;
        Ok(match command {
            Command::Version => Self::Version,
            Command::Status => Self::Status,
            Command::Gc => Self::Gc,
            Command::Del => Self::Del { attachment: attachment(&get)? },
            Command::Check => Self::Check { attachment: attachment(&get)?, netns: netns(&get)? },
            Command::Add => Self::Add {
                attachment: attachment(&get)?,
                netns: netns(&get)?,
                pod: PodArgs::parse(&get("CNI_ARGS").unwrap_or_default())?.require()?,
                allow_own_netns: get("CNI_NETNS_OVERRIDE").is_some_and(|v| is_true(&v)),
            },
        })
    }
}

fn invalid(variable: &'static str, reason: impl Into<String>) -> Error {
    Error::Env { variable, reason: reason.into() }
}

fn required(get: &impl Fn(&str) -> Option<String>, variable: &'static str) -> Result<String, Error> {
    get(variable).filter(|value| !value.is_empty()).ok_or_else(|| invalid(variable, "missing; the runtime must set it"))
}

fn netns(get: &impl Fn(&str) -> Option<String>) -> Result<String, Error> {
    let path = required(get, "CNI_NETNS")?;
    if path.starts_with('/') {
        Ok(path)
    } else {
        Err(invalid("CNI_NETNS", format!("{path:?} is not an absolute path to a network namespace")))
    }
}

fn attachment(get: &impl Fn(&str) -> Option<String>) -> Result<Attachment, Error> {
    let container_id = required(get, "CNI_CONTAINERID")?;
    // SPEC.md: "Must start with an alphanumeric character, optionally followed by any combination of one or more
    // alphanumeric characters, underscore, dot, or hyphen."
    let starts = container_id.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !starts || !container_id.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return Err(invalid(
            "CNI_CONTAINERID",
            format!(
                "{container_id:?} must consist of letters, digits, '_', '.' and '-', and begin with a letter or digit"
            ),
        ));
    }
    let ifname = required(get, "CNI_IFNAME")?;
    // The kernel's dev_valid_name() (net/core/dev.c).
    let bad_char = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if ifname.len() > 15 || ifname == "." || ifname == ".." || ifname.chars().any(bad_char) {
        return Err(invalid(
            "CNI_IFNAME",
            format!("{ifname:?} is not a valid interface name: use at most 15 bytes, without '/', ':' and spaces"),
        ));
    }
    Ok(Attachment { container_id, ifname })
}

/// What a truth value of `CNI_ARGS` may look like (as in libcni's `UnmarshallableBool`).
fn is_true(text: &str) -> bool {
    text == "1" || text.eq_ignore_ascii_case("true")
}

/// `CNI_ARGS` as Kubernetes' runtimes fill it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodArgs {
    /// `K8S_POD_NAMESPACE`
    pub namespace: Option<String>,
    /// `K8S_POD_NAME`
    pub name: Option<String>,
    /// `K8S_POD_UID`
    pub uid: Option<String>,
}

impl PodArgs {
    /// Reads `KEY=VALUE;KEY=VALUE`.
    ///
    /// # Errors
    /// Code 4 when a part is no pair, a value can't be a name, or a key is unknown without `IgnoreUnknown=1`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut args = Self::default();
        let mut ignore_unknown = false;
        let mut unknown = Vec::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| invalid("CNI_ARGS", format!("{pair:?} is not KEY=VALUE; pairs are separated by ';'")))?;
            match key {
                "IgnoreUnknown" => ignore_unknown = is_true(value),
                "K8S_POD_NAMESPACE" => args.namespace = Some(object_name(key, value)?),
                "K8S_POD_NAME" => args.name = Some(object_name(key, value)?),
                "K8S_POD_UID" => args.uid = Some(value.to_owned()).filter(|uid| !uid.is_empty()),
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                _ => unknown.push(key),
            }
        }
        if !unknown.is_empty() && !ignore_unknown {
            let reason = format!("unknown keys {}; add IgnoreUnknown=1 to have them ignored", unknown.join(", "));
            return Err(invalid("CNI_ARGS", reason));
        }
        Ok(args)
    }

    fn require(self) -> Result<PodRef, Error> {
        let missing = |key| invalid("CNI_ARGS", format!("{key} is missing; Fairlead only connects Kubernetes pods"));
        Ok(PodRef {
            namespace: self.namespace.ok_or_else(|| missing("K8S_POD_NAMESPACE"))?,
            name: self.name.ok_or_else(|| missing("K8S_POD_NAME"))?,
            uid: self.uid,
        })
    }
}

/// Names of namespaces and pods are RFC 1123 subdomains.
fn object_name(key: &str, value: &str) -> Result<String, Error> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if value.is_empty() || value.len() > 253 || !value.chars().all(fits) {
        return Err(invalid("CNI_ARGS", format!("{key}={value:?} is not a valid Kubernetes object name")));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const GOOD: [(&str, &str); 5] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "0123abc"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u;OTHER=1"),
    ];

    fn parse(changes: &[(&str, &str)]) -> Result<Env, Error> {
        let mut vars: HashMap<&str, &str> = GOOD.into();
        vars.extend(changes.iter().copied());
        Env::parse(|name| vars.get(name).map(|v| (*v).to_owned()))
    }

    #[test]
    fn add_reads_all_variables() {
        let expected = Env::Add {
            attachment: Attachment { container_id: "0123abc".to_owned(), ifname: "eth0".to_owned() },
            netns: "/run/netns/a".to_owned(),
            pod: PodRef { namespace: "shop".to_owned(), name: "web-0".to_owned(), uid: Some("u".to_owned()) },
            allow_own_netns: false,
        };
        assert_eq!(parse(&[]).unwrap(), expected);
    }

    #[test]
    fn c13_env_errors_name_the_variable() {
        let long = "a".repeat(254);
        let long_name = format!("K8S_POD_NAMESPACE=a;K8S_POD_NAME={long}");
        let table: &[(&str, &str, &str)] = &[
            ("CNI_COMMAND", "", "CNI_COMMAND"),
            ("CNI_COMMAND", "add", "CNI_COMMAND"),
            ("CNI_COMMAND", "INSTALL", "CNI_COMMAND"),
            ("CNI_CONTAINERID", "", "CNI_CONTAINERID"),
            ("CNI_CONTAINERID", "-a", "CNI_CONTAINERID"),
            ("CNI_CONTAINERID", "a/b", "CNI_CONTAINERID"),
            ("CNI_NETNS", "", "CNI_NETNS"),
            ("CNI_NETNS", "netns/a", "CNI_NETNS"),
            ("CNI_IFNAME", "", "CNI_IFNAME"),
            ("CNI_IFNAME", "..", "CNI_IFNAME"),
            ("CNI_IFNAME", "a b", "CNI_IFNAME"),
            ("CNI_IFNAME", "a/b", "CNI_IFNAME"),
            ("CNI_IFNAME", "a:b", "CNI_IFNAME"),
            ("CNI_IFNAME", "sixteen-bytes-ab", "CNI_IFNAME"),
            ("CNI_ARGS", "", "K8S_POD_NAMESPACE"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=shop", "K8S_POD_NAME"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE", "CNI_ARGS"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=Shop;K8S_POD_NAME=a", "K8S_POD_NAMESPACE"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=a/b", "K8S_POD_NAME"),
            ("CNI_ARGS", &long_name, "K8S_POD_NAME"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=a;FOO=1", "IgnoreUnknown=1"),
            ("CNI_ARGS", "IgnoreUnknown=0;K8S_POD_NAMESPACE=a;K8S_POD_NAME=a;FOO=1", "FOO"),
        ];
        for (variable, value, named) in table {
            let error = parse(&[(variable, value)]).unwrap_err();
            assert_eq!(error.code(), 4, "{variable}={value}");
            assert!(error.to_string().contains(named), "{variable}={value}: {error}");
        }
    }

    #[test]
    fn each_command_needs_its_own_variables() {
        let table: &[(&str, &[&str], bool)] = &[
            ("DEL", &["CNI_NETNS", "CNI_ARGS"], true),
            ("DEL", &["CNI_IFNAME"], false),
            ("DEL", &["CNI_CONTAINERID"], false),
            ("CHECK", &["CNI_ARGS"], true),
            ("CHECK", &["CNI_NETNS"], false),
            ("STATUS", &["CNI_NETNS", "CNI_ARGS", "CNI_IFNAME", "CNI_CONTAINERID"], true),
            ("GC", &["CNI_NETNS", "CNI_ARGS", "CNI_IFNAME", "CNI_CONTAINERID"], true),
            ("VERSION", &["CNI_NETNS", "CNI_ARGS", "CNI_IFNAME", "CNI_CONTAINERID"], true),
        ];
        for (command, without, fine) in table {
            let mut changes: Vec<(&str, &str)> = without.iter().map(|name| (*name, "")).collect();
            changes.push(("CNI_COMMAND", command));
            assert_eq!(parse(&changes).is_ok(), *fine, "{command} without {without:?}");
        }
    }

    #[test]
    fn netns_override_takes_the_truth_values_of_libcni() {
        for (value, expected) in [("1", true), ("true", true), ("TRUE", true), ("0", false), ("yes", false)] {
            let Env::Add { allow_own_netns, .. } = parse(&[("CNI_NETNS_OVERRIDE", value)]).unwrap() else {
                panic!("not an ADD")
            };
            assert_eq!(allow_own_netns, expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_environment_is_read_or_refused_with_code_4(
            command in "(ADD|DEL|CHECK|GC|[A-Z]{0,4})", id in "\\PC{0,8}", netns in "\\PC{0,8}",
            ifname in "\\PC{0,20}", args in "(\\PC|;|=){0,40}",
        ) {
            let changes = [
                ("CNI_COMMAND", command.as_str()), ("CNI_CONTAINERID", &id), ("CNI_NETNS", &netns),
                ("CNI_IFNAME", &ifname), ("CNI_ARGS", &args),
            ];
            match parse(&changes) {
                Err(error) => prop_assert_eq!(error.code(), 4),
                Ok(Env::Add { attachment, .. } | Env::Del { attachment } | Env::Check { attachment, .. }) => {
                    prop_assert_eq!(attachment.container_id, id);
                    prop_assert_eq!(attachment.ifname, ifname);
                }
                Ok(_) => {}
            }
        }

        #[test]
        fn c17_pod_args_survive_any_order(mut order in Just(vec![0, 1, 2, 3]).prop_shuffle()) {
            let pairs = ["K8S_POD_NAMESPACE=a", "K8S_POD_NAME=b", "X=1", "IgnoreUnknown=1"];
            let text: Vec<&str> = order.drain(..).map(|i| pairs[i]).collect();
            let args = PodArgs::parse(&text.join(";")).unwrap();
            prop_assert_eq!((args.namespace.as_deref(), args.name.as_deref()), (Some("a"), Some("b")));
        }
    }
}
