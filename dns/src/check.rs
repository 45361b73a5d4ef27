//! What a Corefile would do here, in words.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use fairlead_dns::WireName;
use fairlead_dns::corefile::{Corefile, translate};
use fairlead_dns::files::Files;
use fairlead_dns::forward::{Rules, Scope};
use fairlead_dns::plan::{BlockPlan, ForwardPlan, Makers, OverPlan, Own, Plan, Source, Target};
use fairlead_dns::site::dns64::Dns64;
use fairlead_dns::site::external::External;
use fairlead_dns::site::transfer::Transfer;

/// Reads a Corefile and says what it does.
///
/// # Errors
/// It can't be served; the text says where and why.
pub(crate) fn check(path: &Path, files: &dyn Files) -> Result<String> {
    let plan = translate(&Corefile::read(path, files)?, 0)?;
    // What it names has to be there.
    Makers::default().make(&plan, files, &Own::default()).with_context(|| path.display().to_string())?;
    Ok(words(path, &plan))
}

fn words(path: &Path, plan: &Plan) -> String {
    let mut out = format!("{} can be served, on port {}", path.display(), plan.port);
    if !plan.bind.is_empty() {
        let addresses: Vec<String> = plan.bind.iter().map(ToString::to_string).collect();
        out += &format!(" of {}", addresses.join(", "));
    }
    out += "\n";
    // Writing to a string can't fail.
    let _ = writeln!(out, "zone {}: records live for {} s, pods {:?}", plan.origin, plan.ttl, plan.options.pods);
    for block in &plan.blocks {
        let _ = writeln!(out, "block {}:", names(&block.rules.zones));
        for line in block_words(block) {
            let _ = writeln!(out, "  {line}");
        }
    }
    for note in &plan.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn names(names: &[WireName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn block_words(block: &BlockPlan) -> Vec<String> {
    let rules = &block.rules;
    let mut lines = Vec::new();
    let mut count = |count: usize, what: &str| {
        if count > 0 {
            lines.push(format!("{what}: {count}"));
        }
    };
    count(rules.log.len(), "query logs");
    count(rules.acl.len(), "access rules");
    count(rules.rewrites.len(), "rewrite rules");
    count(rules.templates.len(), "templates");
    if !rules.hosts.zones.is_empty() {
        let file = block.hosts.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        lines.push(format!("fixed addresses: {file} and what is in the Corefile"));
    }
    if let Some(Dns64 { prefix, all, over_v4 }) = &rules.dns64 {
        let whom = if *over_v4 { "every client" } else { "clients that ask over IPv6" };
        let what = if *all { "names with IPv6 addresses too" } else { "names without IPv6 addresses" };
        lines.push(format!("dns64: {whom}, {what}, in {prefix}"));
    }
    for Transfer { zones, anybody, to } in &rules.transfers {
        let to = to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        lines.push(format!("zone transfers of {} to {}", names(zones), if *anybody { "everybody" } else { &to }));
    }
    if let Some(External { zones, ttl, headless, .. }) = &rules.external {
        let endpoints = if *headless { " and endpoints of headless Services" } else { "" };
        lines.push(format!("external addresses of Services{endpoints} in {}: records live for {ttl} s", names(zones)));
    }
    if let Some(cluster) = &rules.cluster {
        lines.push(format!("the cluster's zone, with reverse zones {}", names(&cluster.reverse)));
    }
    lines.extend(block.forwards.iter().map(forward_words));
    if block.forwards.is_empty() {
        lines.push("other names are refused".to_owned());
    }
    lines
}

fn forward_words(forward: &ForwardPlan) -> String {
    let target = |Target { source, over }: &Target| {
        let server = match source {
            Source::Server(server) => server.to_string(),
            Source::File(path) => path.display().to_string(),
        };
        match over {
            OverPlan::Udp => server,
            OverPlan::Tcp => format!("{server} over TCP"),
            OverPlan::Tls(name) => format!("{server} over TLS as {name}"),
        }
    };
    let to: Vec<String> = forward.to.iter().map(target).collect();
    let Rules { bytes, ttl, denial, scope, .. } = &forward.cache;
    let kept = if *bytes == 0 {
        "answers are not cached".to_owned()
    } else {
        format!("answers{} are cached for {ttl} s, negative ones for {denial} s", scope_words(scope))
    };
    format!("forward {} to {}; {kept}", forward.from, to.join(", "))
}

/// Which answers are kept, where that is not all.
fn scope_words(Scope { zones, no_records, no_denials }: &Scope) -> String {
    let mut out = String::new();
    for (what, zones) in [(" of", zones), (" but positive ones of", no_records), (" but negative ones of", no_denials)]
    {
        if !zones.is_empty() {
            out += &format!("{what} {}", names(zones));
        }
    }
    out
}
