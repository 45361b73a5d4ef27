//! What the command line takes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;

use super::named::Asked;
use super::node::{DoctorArgs, InstallArgs, UninstallArgs};
use super::show::{Output, Watch};
use crate::admin::{DEFAULT_SOCKET, PortRef};
use crate::log;
use crate::settings::Settings;

/// Fairlead: the network of a Kubernetes node.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 120)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
    /// The agent's admin socket
    #[arg(long, global = true, default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub(super) socket: PathBuf,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the node's agent
    Agent(Box<AgentArgs>),
    /// Show the state of the agent: health, network, objects, pods
    Status(StatusArgs),
    /// List and explain Services
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Explain NetworkPolicy and ClusterNetworkPolicy decisions, and predict those of a change
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show dropped packets: counts by reason, and the most recent ones
    Drops(DropsArgs),
    /// Show or change the log level of the running agent
    LogLevel(LogLevelArgs),
    /// Prepare the node for the agent: CNI plugin, bpf file system, kernel settings, API server address
    Install(InstallArgs),
    /// Check this node for what prevents or impairs Fairlead, with remedies. Works without an agent
    Doctor(DoctorArgs),
    /// Remove Fairlead from this node: programs, maps, pod interfaces, routes, files; restore kernel settings
    Uninstall(UninstallArgs),
    /// Show the versions of this command and of the running agent, and which kernel features they can use
    Version,
    /// Print completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write manual pages
    Man {
        /// The directory, created if it does not exist
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Wait for SIGTERM; for the pods of manifests/remove
    #[command(hide = true)]
    Stay,
}

#[derive(Debug, ClapArgs)]
pub(super) struct AgentArgs {
    /// The name of this node's Node object
    #[arg(long, env = "NODE_NAME")]
    pub(super) node: String,
    /// Read objects from the manifests in this directory instead of the Kubernetes API
    #[arg(long, value_name = "DIR")]
    pub(super) objects: Option<PathBuf>,
    /// Kubeconfig for the Kubernetes API [default: the pod's service account]
    #[arg(long, value_name = "FILE", conflicts_with = "objects")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Read settings from this YAML file: the flags below in camelCase, those of a group below its name
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) settings: Settings,
}

#[derive(Debug, ClapArgs)]
pub(super) struct StatusArgs {
    /// Also show how full tables are, and the sizes of programs
    #[arg(short, long)]
    pub(super) verbose: bool,
    #[command(flatten)]
    pub(super) watch: Watch,
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// List Services with their addresses
    List {
        #[command(flatten)]
        watch: Watch,
    },
    /// Explain what happens to connections to an address or a Service, and why
    Explain {
        /// For example 10.96.0.10:53, `[fd00:10:96::a]:53`, kube-system/kube-dns or kube-system/kube-dns:dns
        #[arg(value_name = "ADDR:PORT|NAMESPACE/SERVICE[:PORT]")]
        asked: Asked,
        #[command(flatten)]
        watch: Watch,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Explain what happens to a flow: whether policy allows it, which rule decides, whether that is in force
    Explain {
        /// NAMESPACE/POD, node/NAME or an address
        #[arg(long, value_name = "END")]
        from: String,
        /// NAMESPACE/POD, NAMESPACE/SERVICE, node/NAME or an address, with a port or its name: shop/cart:7070,
        /// shop/cart:http, 10.0.0.1:53/udp, `[fd00::1]:80/tcp`
        #[arg(long, value_name = "END[:PORT[/PROTO]]", value_parser = destination)]
        to: Destination,
        /// Exit with 3 if the flow is dropped or refused, and with 4 if that depends on the endpoint or the family
        #[arg(long)]
        exit_code: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// List the rules of policies that judge pods of this node, with the flows that they allowed and the packets that they
    /// denied
    List {
        /// Only policies that judge this pod
        #[arg(long, value_name = "NAMESPACE/POD")]
        pod: Option<String>,
        /// Only rules that have matched nothing since counting began, or for that many days
        #[arg(long, value_name = "DAYS", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
        stale: Option<u32>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show which flows of this node policies in audit mode (annotation fairlead.io/mode=audit) would have dropped, and by which
    /// rule
    Audit {
        /// Only flows of this pod
        #[arg(long, value_name = "NAMESPACE/POD")]
        pod: Option<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show which connections NetworkPolicies and ClusterNetworkPolicies would open and close, before they are applied
    WhatIf(WhatIfArgs),
}

#[derive(Debug, ClapArgs)]
pub(super) struct WhatIfArgs {
    /// Manifests with new or changed policies; - is standard input
    #[arg(value_name = "FILE", required = true)]
    pub(super) files: Vec<PathBuf>,
    /// The policies would be deleted
    #[arg(long)]
    pub(super) delete: bool,
    /// Namespace of policies that name none. Without it they are refused
    #[arg(short, long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(super) namespace: Option<String>,
    /// Compare with the objects in the manifests in this directory instead of those that the agent knows. Works without an
    /// agent
    #[arg(long, value_name = "DIR")]
    pub(super) objects: Option<PathBuf>,
    /// Exit with 3 if connections would be closed, with 4 if some would be opened, with 5 if both, and with 2 if the
    /// comparison is incomplete
    #[arg(long)]
    pub(super) exit_code: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct DropsArgs {
    /// Print drops as they happen
    #[arg(short, long)]
    pub(super) follow: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct LogLevelArgs {
    /// A level, optionally followed by levels of modules: info,fairlead_agent::cni=debug
    #[arg(value_name = "FILTER", value_parser = log::filter)]
    pub(super) filter: Option<String>,
}

/// The far end of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) end: String,
    pub(super) port: PortRef,
    /// IP protocol number.
    pub(super) protocol: u8,
}

fn destination(text: &str) -> Result<Destination, String> {
    let (rest, protocol) = match text.rsplit_once('/') {
        Some((rest, proto)) if rest.contains(':') && !proto.contains([':', ']']) => (rest, protocol(proto)?),
        _ => (text, 6),
    };
    // An IPv6 address without brackets has colons, and no port.
    if rest.parse::<std::net::IpAddr>().is_ok() {
        return Ok(Destination { end: rest.to_owned(), port: PortRef::Number(0), protocol });
    }
    if let Ok(address) = rest.parse::<SocketAddr>() {
        return Ok(Destination { end: address.ip().to_string(), port: PortRef::Number(address.port()), protocol });
    }
    let (end, port) = match rest.rsplit_once(':') {
        Some((end, text)) => (end, port(text)?),
        None => (rest, PortRef::Number(0)),
    };
    Ok(Destination { end: end.trim_start_matches('[').trim_end_matches(']').to_owned(), port, protocol })
}

/// A number, or what Kubernetes takes for a port's name (RFC 6335 section 5.1).
fn port(text: &str) -> Result<PortRef, String> {
    if let Ok(number) = text.parse::<u16>() {
        return Ok(PortRef::Number(number));
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_name = text.len() <= 63 && text.chars().all(fits) && text.chars().any(|c| c.is_ascii_lowercase());
    if is_name {
        Ok(PortRef::Name(text.to_owned()))
    } else {
        Err(format!("{text:?} is not a port: use 1 to 65535, or a name"))
    }
}

fn protocol(text: &str) -> Result<u8, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "sctp" => Ok(132),
        "icmp" => Ok(1),
        "icmpv6" => Ok(58),
        _ => Err(format!("{text:?} is not a protocol: use tcp, udp, sctp, icmp or icmpv6")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn destinations_have_ports_and_protocols() {
        let parsed = |text| destination(text).map(|d| (d.end, d.port, d.protocol));
        let number = PortRef::Number;
        assert_eq!(parsed("shop/cart:7070"), Ok(("shop/cart".into(), number(7070), 6)));
        assert_eq!(parsed("shop/cart"), Ok(("shop/cart".into(), number(0), 6)));
        assert_eq!(parsed("shop/cart:53/udp"), Ok(("shop/cart".into(), number(53), 17)));
        assert_eq!(parsed("10.0.0.1:53/UDP"), Ok(("10.0.0.1".into(), number(53), 17)));
        assert_eq!(parsed("10.0.0.1"), Ok(("10.0.0.1".into(), number(0), 6)));
        assert_eq!(parsed("fd00::1"), Ok(("fd00::1".into(), number(0), 6)));
        assert_eq!(parsed("[fd00::1]:80/tcp"), Ok(("fd00::1".into(), number(80), 6)));
        assert!(destination("10.0.0.1:80/gre").unwrap_err().contains("icmpv6"));
        assert_eq!(parsed("shop/cart:http"), Ok(("shop/cart".into(), PortRef::Name("http".into()), 6)));
        assert_eq!(parsed("[fd00::1]:dns/udp"), Ok(("fd00::1".into(), PortRef::Name("dns".into()), 17)));
        for wrong in ["shop/cart:70000", "shop/cart:", "shop/cart:HTTP", "shop/cart:-"] {
            assert!(destination(wrong).unwrap_err().contains("65535"), "{wrong}");
        }
    }
}
