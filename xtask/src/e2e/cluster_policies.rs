//! Upstream's conformance tests of ClusterNetworkPolicy (network-policy-api), standard and experimental, on a cluster of their own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use fairlead_cluster::{Cluster, Host, POLICY_TESTS, Spec};

use super::expect::Verdict;
use crate::cluster::{self, Network};
use crate::vm::{Whole, quoted};
use crate::{paths, run};

/// The cluster's name.
const NAME: &str = "cluster-policies";
/// Ends of the names of tests that send SCTP, among other things: a kernel without can't run them.
const WITH_SCTP: [&str; 5] = ["SCTP", "Gress", "PortRange", "EgressNodePeers", "EgressInlineCIDRPeers"];
/// What go test prints before the name of a test that has ended, and what it says.
const ENDED: [(&str, End); 3] =
    [("--- PASS: ", End::Passed), ("--- FAIL: ", End::Failed), ("--- SKIP: ", End::LeftOut)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    LeftOut,
}

/// What the tests print, in the folder of results.
const LOG: &str = "cluster-policies.log";
/// The folder of a guest's results, which has the program that runs there, too.
const GUEST: &str = "guest";
const PROGRAM: &str = "xtask";

/// Where the tests are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On this machine: those that its kernel can run.
    Here,
    /// In a guest, whose kernel has SCTP: those alone that need it.
    Guest,
}

impl Place {
    fn results(self) -> PathBuf {
        let results = paths::target().join("e2e");
        match self {
            Self::Here => results,
            Self::Guest => results.join(GUEST),
        }
    }

    /// As many nodes as the tests need, where each is slow.
    fn nodes(self) -> u8 {
        match self {
            Self::Here => 3,
            Self::Guest => 2,
        }
    }

    /// Which tests run, as arguments of theirs.
    fn choice(self, has_sctp: bool) -> Vec<String> {
        let with_sctp = WITH_SCTP.join("|");
        match self {
            Self::Here if has_sctp => vec!["-test.run=^TestConformance$".to_owned()],
            Self::Here => {
                vec!["-test.run=^TestConformance$".to_owned(), format!("-test.skip=TestConformance/.*({with_sctp})$")]
            }
            Self::Guest => vec![format!("-test.run=^TestConformance$/({with_sctp})$")],
        }
    }
}

/// Runs them with this image of Fairlead, or one that is built now.
pub(super) fn run(place: Place, image: Option<&Path>) -> Result<Verdict> {
    let host = cluster::host()?;
    host.builder.build(POLICY_TESTS)?;
    host.down(NAME)?;
    let archive = cluster::archive(Network::Fairlead, image)?;
    let cluster = host.up_guarded(&Spec { nodes: place.nodes(), ..Spec::new(NAME) })?;
    cluster::install(&host, &cluster, Network::Fairlead, archive.as_deref())?;
    // The experimental definition has the fields of the standard one.
    let definition = paths::workspace().join("manifests/components/cluster-network-policy-experimental/crd.yaml");
    cluster.apply(&fs::read_to_string(definition)?)?;
    host.load_policy_test_images(&cluster)?;
    let verdict = on(&host, &cluster, place)?;
    cluster.down()?;
    Ok(verdict)
}

/// Runs those that send SCTP in a guest whose kernel has it, with a cluster of its own.
pub(super) fn in_guest(accel: &str, image: Option<&Path>) -> Result<Verdict> {
    let host = cluster::host()?;
    host.prepare_policy_tests()?;
    let image = cluster::archive(Network::Fairlead, image)?.context("it is built")?;
    let image = fs::canonicalize(image)?;
    let results = Place::Guest.results();
    if results.exists() {
        fs::remove_dir_all(&results)?;
    }
    fs::create_dir_all(&results)?;
    // The file that this process was started from may be another one by now.
    fs::copy("/proc/self/exe", results.join(PROGRAM))?;
    let [program, image] = [&results.join(PROGRAM), &image].map(|path| quoted(&path.display().to_string()));
    let command = format!(
        "{program} e2e --cluster-policies --in-guest --image {image} ||
         {{ cp -r \"$SCRATCH\"/*.failed \"$RESULTS\" 2> /dev/null; exit 1; }}"
    );
    let guest = Whole { command: &command, scratch: &host.clusters, results: &results };
    let succeeded = guest.run(accel)?;
    let log = results.join(LOG);
    let text = fs::read_to_string(&log).with_context(|| format!("the guest ran no test: no {}", log.display()))?;
    let mut verdict = Verdict::default();
    text.lines().for_each(|line| note(&mut verdict, line));
    if verdict.passed.is_empty() || succeeded != verdict.wrong.is_empty() {
        bail!("the guest did not get to the end: see above, and {}", log.display());
    }
    verdict.wrong.extend(missing(&verdict));
    Ok(verdict)
}

fn on(host: &Host, cluster: &Cluster, place: Place) -> Result<Verdict> {
    let tests = host.builder.path(POLICY_TESTS.first().context("the tests are a part")?)?;
    let mut command = cluster.in_fabric(&tests)?;
    let sctp = fs::exists("/proc/net/sctp")?;
    ensure!(sctp || place == Place::Here, "the guest's kernel has no SCTP: its module was not loaded");
    if !sctp {
        run::say(format!("this kernel has no SCTP, so tests that send it are left out: {}", WITH_SCTP.join(", ")));
    }
    command.args(["-test.v", "-test.timeout=6h", "-all-features"]).args(place.choice(sctp));
    command.env("KUBECONFIG", cluster.kubeconfig()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("can't start the tests")?;
    let out = place.results();
    fs::create_dir_all(&out)?;
    let mut log = File::create(out.join(LOG))?;
    let mut verdict = Verdict::default();
    for line in BufReader::new(child.stdout.take().context("it is piped")?).lines() {
        let line = line?;
        writeln!(log, "{line}")?;
        // It says how they ended when all have.
        if let Some(test) = line.strip_prefix("=== RUN   TestConformance/").filter(|test| !test.contains('/')) {
            run::say(test);
        }
        note(&mut verdict, &line);
    }
    let status = child.wait()?;
    if verdict.passed.is_empty() || status.success() != verdict.wrong.is_empty() {
        bail!("the tests ended with {status}: see {LOG} in {}", out.display());
    }
    Ok(verdict)
}

/// Names of [`WITH_SCTP`] that no test has, which upstream may have renamed.
fn missing(verdict: &Verdict) -> Vec<String> {
    let ran = |end: &str| verdict.passed.iter().chain(&verdict.wrong).any(|test| test.ends_with(end));
    let ends = WITH_SCTP.iter().filter(|end| !ran(end));
    ends.map(|end| format!("no test's name ends in {end}: has upstream renamed it?")).collect()
}

/// What a line says of a test.
fn note(verdict: &mut Verdict, line: &str) {
    match ended(line) {
        Some((test, End::Passed)) => verdict.passed.push(test.to_owned()),
        Some((test, End::Failed)) => verdict.wrong.push(test.to_owned()),
        Some((_, End::LeftOut)) | None => {}
    }
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
    fn a_guest_runs_what_a_kernel_without_sctp_leaves_out() {
        let (run, skip) = (Place::Guest.choice(true), Place::Here.choice(false));
        for part in WITH_SCTP {
            assert!(run.concat().contains(part) && skip[1].contains(part), "{part}: {run:?} {skip:?}");
        }
        assert!(!Place::Here.choice(true).concat().contains("skip"));
    }

    #[test]
    fn a_name_that_no_test_has_is_wrong() {
        let mut verdict = Verdict::default();
        for end in WITH_SCTP {
            assert_eq!(missing(&verdict).iter().filter(|line| line.contains(&format!(" {end}:"))).count(), 1, "{end}");
            note(&mut verdict, &format!("    --- PASS: TestConformance/CNPAdminTierIngress{end} (1.00s)"));
            assert!(!missing(&verdict).concat().contains(&format!(" {end}:")), "{end}");
        }
        assert_eq!(missing(&verdict), Vec::<String>::new());
    }

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
