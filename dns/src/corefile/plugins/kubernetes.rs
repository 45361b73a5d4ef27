//! The cluster's zone.

use super::super::syntax::{Directive, Mistake};
use super::{fall, number, zones};
use crate::WireName;
use crate::name::strip_suffix;
use crate::site::{Cluster, REVERSE};
use crate::zone::{Options, PodMode};

/// What the plugin's options say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kubernetes {
    pub(crate) cluster: Cluster,
    pub(crate) ttl: u32,
    pub(crate) options: Options,
    pub(crate) labels: Option<String>,
}

const KNOWN: &str = "namespaces, labels, pods, endpoint_pod_names, ttl, noendpoints, fallthrough, ignore empty_service";

/// `kubernetes [ZONES...] { OPTIONS }`.
pub(crate) fn kubernetes(
    directive: &Directive,
    block: &[WireName],
    notes: &mut Vec<String>,
) -> Result<Kubernetes, Mistake> {
    let is_reverse = |zone: &WireName| {
        let parents = REVERSE.iter().filter_map(|parent| WireName::parse(parent).ok());
        parents.into_iter().any(|parent| strip_suffix(zone.as_wire(), parent.as_wire()).is_some())
    };
    let (reverse, own): (Vec<_>, Vec<_>) = zones(&directive.args, block)?.into_iter().partition(is_reverse);
    let [origin] = &own[..] else {
        return Err(
            directive.wrong("kubernetes takes one zone besides reverse ones: write it, for example cluster.local")
        );
    };
    if origin.as_wire().len() == 1 {
        return Err(directive.wrong("kubernetes can't have the root for its zone: write a zone such as cluster.local"));
    }
    let cluster = Cluster { origin: origin.clone(), reverse, fall: crate::site::scope::Fall::Nowhere };
    // What CoreDNS has where nothing is said.
    let options = Options { pods: PodMode::Disabled, ..Options::default() };
    let mut all = Kubernetes { cluster, ttl: 5, options, labels: None };
    for line in &directive.body {
        option(line, &mut all, notes)?;
    }
    Ok(all)
}

fn option(line: &Directive, all: &mut Kubernetes, notes: &mut Vec<String>) -> Result<(), Mistake> {
    let options = &mut all.options;
    match line.plain()?.name.text.as_str() {
        "pods" => {
            let word = line.one()?;
            options.pods = match word.text.as_str() {
                "insecure" => PodMode::Insecure,
                "verified" => PodMode::Verified,
                "disabled" => PodMode::Disabled,
                _ => return Err(word.wrong(format!("{:?}: use insecure, verified or disabled", word.text))),
            };
        }
        "endpoint_pod_names" => {
            line.bare()?;
            options.endpoint_pod_names = true;
        }
        "namespaces" if line.args.is_empty() => {
            return Err(line.wrong("namespaces needs a name: write it after the word"));
        }
        "namespaces" => {
            let names = line.args.iter().map(|word| word.text.clone());
            options.namespaces.get_or_insert_default().extend(names);
        }
        "labels" if line.args.is_empty() => {
            return Err(line.wrong("labels needs a selector: write it, for example app=web"));
        }
        "labels" => {
            let words: Vec<&str> = line.args.iter().map(|word| word.text.as_str()).collect();
            all.labels = Some(words.join(" "));
        }
        "ttl" => all.ttl = number(line.one()?, 0..=3600)?,
        "noendpoints" => {
            line.bare()?;
            options.endpoints = false;
        }
        "fallthrough" => all.cluster.fall = fall(line)?,
        "ignore" => {
            let word = line.one()?;
            if !matches!(word.text.as_str(), "empty_service" | "emptyservice") {
                return Err(word.wrong(format!("{:?} can't be ignored: only empty_service", word.text)));
            }
            options.empty_services = false;
        }
        "endpoint" | "tls" | "kubeconfig" => {
            return Err(line.wrong("the API server is not named here: remove it, and give --kubeconfig FILE"));
        }
        name @ ("namespace_labels" | "multicluster" | "zonal" | "transfer") => {
            return Err(
                line.wrong(format!("kubernetes has no {name} here: remove it, or keep CoreDNS; known are {KNOWN}"))
            );
        }
        name @ ("upstream"
        | "resyncperiod"
        | "apiserver_qps"
        | "apiserver_burst"
        | "apiserver_max_inflight"
        | "startup_timeout") => {
            notes.push(format!("{}: {name} has no effect", line.name.place));
        }
        _ => return Err(line.unknown("kubernetes", KNOWN)),
    }
    Ok(())
}
