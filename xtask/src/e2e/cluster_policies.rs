//! Upstream's conformance tests of ClusterNetworkPolicy (network-policy-api), standard and experimental, on a cluster of their own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use fairlead_cluster::{Cluster, Host, POLICY_TESTS, Spec};

use super::expect::Verdict;
use crate::cluster::{self, Network};
use crate::{image, paths, run};

/// The cluster's name.
const NAME: &str = "cluster-policies";
/// What sends SCTP where the kernel has none.
const SCTP: &str = "fairlead-sctp";
/// What go test prints before the name of a test that has ended, and what it says.
const ENDED: [(&str, End); 3] =
    [("--- PASS: ", End::Passed), ("--- FAIL: ", End::Failed), ("--- SKIP: ", End::LeftOut)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    LeftOut,
}

/// Runs them, and says what became of each.
pub(super) fn run() -> Result<Verdict> {
    let host = cluster::host()?;
    host.builder.build(POLICY_TESTS)?;
    host.down(NAME)?;
    let archive = cluster::archive(Network::Fairlead, None)?;
    let cluster = host.up_guarded(&Spec { nodes: 3, ..Spec::new(NAME) })?;
    cluster::install(&host, &cluster, Network::Fairlead, archive.as_deref())?;
    // The experimental definition has the fields of the standard one.
    let definition = paths::workspace().join("manifests/components/cluster-network-policy-experimental/crd.yaml");
    cluster.apply(&fs::read_to_string(definition)?)?;
    host.load_policy_test_images(&cluster, &image::build_static(SCTP)?)?;
    let verdict = on(&host, &cluster)?;
    cluster.down()?;
    verdict.say();
    Ok(verdict)
}

fn on(host: &Host, cluster: &Cluster) -> Result<Verdict> {
    let tests = host.builder.path(POLICY_TESTS.first().context("the tests are a part")?)?;
    let mut command = cluster.in_fabric(&tests)?;
    command.args(["-test.v", "-test.run=^TestConformance$", "-test.timeout=60m", "-all-features"]);
    if !fs::exists("/proc/net/sctp")? {
        run::say(format!("this kernel has no SCTP: pods send and receive it by raw sockets ({SCTP})"));
    }
    command.env("KUBECONFIG", cluster.kubeconfig()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("can't start the tests")?;
    let out = paths::target().join("e2e");
    fs::create_dir_all(&out)?;
    let mut log = File::create(out.join("cluster-policies.log"))?;
    let mut verdict = Verdict::default();
    for line in BufReader::new(child.stdout.take().context("it is piped")?).lines() {
        let line = line?;
        writeln!(log, "{line}")?;
        // It says how they ended when all have.
        if let Some(test) = line.strip_prefix("=== RUN   TestConformance/").filter(|test| !test.contains('/')) {
            run::say(test);
        }
        match ended(&line) {
            Some((test, End::Passed)) => verdict.passed.push(test.to_owned()),
            Some((test, End::Failed)) => verdict.wrong.push(test.to_owned()),
            Some((_, End::LeftOut)) | None => {}
        }
    }
    let status = child.wait()?;
    if verdict.passed.is_empty() || status.success() != verdict.wrong.is_empty() {
        bail!("the tests ended with {status}: see cluster-policies.log in {}", out.display());
    }
    Ok(verdict)
}

/// The test that a line says has ended: one of the suite, not one of its parts.
fn ended(line: &str) -> Option<(&str, End)> {
    let line = line.trim_start();
    let (rest, end) = ENDED.iter().find_map(|(before, end)| Some((line.strip_prefix(before)?, *end)))?;
    let test = rest.split(' ').next()?.strip_prefix("TestConformance/")?;
    (!test.contains('/')).then_some((test, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_tests_are_read_and_those_of_their_parts_are_not() {
        assert_eq!(ended("    --- PASS: TestConformance/AdminTierTCP (3.10s)"), Some(("AdminTierTCP", End::Passed)));
        assert_eq!(ended("    --- FAIL: TestConformance/AdminTierTCP (3.10s)"), Some(("AdminTierTCP", End::Failed)));
        assert_eq!(ended("    --- SKIP: TestConformance/Named (0.00s)"), Some(("Named", End::LeftOut)));
        assert_eq!(ended("        --- FAIL: TestConformance/AdminTierTCP/a_rule (1.00s)"), None);
        assert_eq!(ended("--- PASS: TestConformance (90.00s)"), None);
        assert_eq!(ended("=== RUN   TestConformance/AdminTierTCP"), None);
    }
}
