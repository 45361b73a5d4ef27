//! Running upstream's tests.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fairlead_cluster::Cluster;

use super::specs::{self, Spec, State};
use crate::run;

/// The most that one spec may take: upstream's own limits are shorter.
const POLL: &str = "15m";
/// What Ginkgo prints for each spec that has ended.
const BULLET: char = '•';

/// Upstream's programs.
pub(super) struct Programs {
    pub(super) tests: std::path::PathBuf,
    pub(super) ginkgo: std::path::PathBuf,
}

/// The names of all specs that match an expression, without a cluster.
pub(super) fn list(programs: &Programs, expression: &str, out: &Path) -> Result<Vec<String>> {
    let report = out.join("list.json");
    run::output(
        Command::new(&programs.tests)
            .args(["--ginkgo.dry-run", "--ginkgo.no-color", "--provider=local"])
            .arg(format!("--ginkgo.focus={expression}"))
            .arg(format!("--ginkgo.json-report={}", report.display())),
    )?;
    let specs = specs::read(&fs::read(&report)?)?;
    Ok(specs.into_iter().filter(|spec| spec.state == State::Passed).map(|spec| spec.name).collect())
}

/// Runs these specs on the cluster. Ginkgo's own words go to a file: a failed spec has hundreds of lines.
pub(super) fn run(
    programs: &Programs,
    cluster: &Cluster,
    names: &[&str],
    procs: usize,
    out: &Path,
) -> Result<Vec<Spec>> {
    let report = out.join("report.json");
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let log = out.join("ginkgo.log");
    let mut command = cluster.in_fabric(&programs.ginkgo)?;
    command
        .args([&format!("--procs={procs}"), "--no-color", "--timeout=4h", &format!("--poll-progress-after={POLL}")])
        .arg(format!("--focus={}", specs::focus(names)))
        .arg(format!("--output-dir={}", out.display()))
        .args(["--json-report=report.json", "--junit-report=junit.xml"])
        .arg(&programs.tests)
        .args(["--", "--provider=local", "--disable-log-dump"])
        // Specs that need several leave themselves out where nobody says.
        .arg(format!("--num-nodes={}", cluster.spec().nodes))
        .arg(format!("--kubeconfig={}", cluster.kubeconfig().display()))
        .arg(format!("--kubectl-path={}", cluster.program("kubectl").display()))
        .current_dir(out)
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(out.join("ginkgo.err"))?);
    let mut child = command.spawn().context("can't start ginkgo")?;
    let mut output = child.stdout.take().context("it is piped")?;
    let mut file = File::create(&log)?;
    let (begin, mut said) = (Instant::now(), Instant::now());
    let (mut buffer, mut ended) = ([0; 16384], 0);
    loop {
        let length = output.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        file.write_all(&buffer[..length])?;
        // A bullet that is cut in two is missed, which only the progress shows.
        ended += String::from_utf8_lossy(&buffer[..length]).matches(BULLET).count();
        if said.elapsed() > Duration::from_secs(30) {
            run::say(format!("{:>5} s  {ended} of {} specs have ended", begin.elapsed().as_secs(), names.len()));
            said = Instant::now();
        }
    }
    // It fails when a spec does, which the report tells better.
    child.wait()?;
    ensure!(report.is_file(), "Ginkgo wrote no report: its output is in {}", log.display());
    specs::read(&fs::read(&report)?)
}
