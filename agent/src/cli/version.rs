//! `fairlead version`: this command, the agent that runs, the kernel.

use std::path::Path;

use serde::Serialize;

use super::show::{Output, show};
use super::{Build, CliError, ask, print};
use crate::admin::{API, Request, VersionView};
use crate::doctor;
use crate::wiring::PROC_SYS;

/// What `version` prints.
#[derive(Debug, Serialize)]
pub(super) struct Versions {
    /// Of this command.
    pub(super) version: String,
    /// The commit that it was built of, where the build said so.
    pub(super) commit: Option<String>,
    /// What it says on the agent's socket.
    pub(super) api: u32,
    /// The agent that runs; nothing if none does.
    pub(super) agent: Option<VersionView>,
    /// Why the agent's is not known.
    pub(super) agent_unknown: Option<String>,
    /// The kernel that runs.
    pub(super) kernel: KernelView,
}

/// What the kernel has of what Fairlead uses.
#[derive(Debug, Serialize)]
pub(super) struct KernelView {
    pub(super) release: String,
    pub(super) features: Vec<FeatureView>,
}

/// One thing; nothing where this process may not ask.
#[derive(Debug, Serialize)]
pub(super) struct FeatureView {
    pub(super) name: &'static str,
    pub(super) present: Option<bool>,
}

pub(super) fn version(socket: &Path, build: Build, output: Output) -> Result<(), CliError> {
    let (agent, agent_unknown) = match ask::<VersionView>(socket, &Request::Version) {
        Ok(agent) => (Some(agent), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let versions = Versions {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: build.commit.map(str::to_owned),
        api: API,
        agent,
        agent_unknown,
        kernel: features(doctor::kernel(Path::new(PROC_SYS))),
    };
    show(output, "Version", &versions, || print::versions(&versions))
}

fn features(kernel: doctor::Kernel) -> KernelView {
    let doctor::Kernel { release, version, btf, jit, ends_sockets, lacks, refuses } = kernel;
    let all = refuses.is_none().then_some(lacks.is_empty());
    let features = [
        ("tcx links (else clsact filters)", version.map(|version| version >= (6, 6))),
        ("programs, maps and helpers that are used", all),
        ("BTF", btf),
        ("JIT", jit),
        ("closes sockets of processes", ends_sockets),
    ];
    let features = features.map(|(name, present)| FeatureView { name, present });
    KernelView { release, features: features.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_asked_is_neither_there_nor_missing() {
        let kernel = doctor::Kernel {
            release: "6.1.0-50-cloud-amd64".into(),
            version: Some((6, 1)),
            btf: Some(true),
            jit: None,
            ends_sockets: None,
            lacks: vec![],
            refuses: Some("operation not permitted".into()),
        };
        let view = features(kernel);
        let present: Vec<_> = view.features.iter().map(|feature| feature.present).collect();
        assert_eq!(present, [Some(false), None, Some(true), None, None]);
    }
}
