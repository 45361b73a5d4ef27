//! The steps of `cargo xtask test`. What fails soonest comes first; to add one is to add an entry.

use anyhow::{Context, Result};
use fairlead_cluster::CLUSTER;

use super::fuzz::Effort;
use super::{Outcome, Test, arm64, cluster, fuzz, host};
use crate::{
    book,
    cluster::builder,
    e2e::E2e,
    setup::Part::{
        self, Arm64Compiler, Arm64Emulators, Arm64Kernels, BpfLinker, Cluster, Emulator, Kernels, Mdbook, Modules,
        RustSrc, TestRoot,
    },
    tally::Tally,
    vm::Vm,
};

/// How much is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// `--quick`.
    Quick,
    /// Tests with a name.
    Named,
    /// `--cluster`.
    Cluster,
    /// `--soak`.
    Soak,
    /// What every change has to pass.
    Whole,
    /// `--full`: what takes too long for every change, too.
    Full,
}

/// A step.
pub(super) struct Step {
    /// What it is called.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) what: &'static str,
    /// What it takes beyond a compiler: time on two cores, room.
    pub(super) takes: &'static str,
    /// What is installed for it if it is missing.
    pub(super) needs: &'static [Part],
    /// The runs that it is part of.
    runs: &'static [Run],
    /// Does it.
    pub(super) act: fn(&Test) -> Result<Outcome>,
}

/// Every step, in order, a line each.
#[rustfmt::skip]
const STEPS: [Step; 22] = {
    use Run::{Full, Named, Quick, Whole};
    [
        Step { name: "unit tests", what: "of every crate, and the examples in documentation", takes: "2 min", needs: &[], runs: &[Quick, Named, Whole, Full], act: |test| host::units(test.filter()) },
        Step { name: "behaviour tests", what: "everything in folders named tests, in labs", takes: "6 min, root", needs: &[], runs: &[Quick, Named, Whole, Full], act: behaviour },
        Step { name: "behaviour tests, long", what: "DNS beside CoreDNS, with the resolvers that are installed, ten million questions, and ten minutes without an API server; grids of generated policies; ten thousand connections to a release with other tables and back", takes: "60 min, root", needs: &[RustSrc, BpfLinker], runs: &[Full], act: |test| host::long(test.filter()) },
        Step { name: "services with XDP", what: "the tests of Services once more, with XDP at the uplinks of all labs", takes: "5 min, root", needs: &[], runs: &[Full], act: |_| host::with_xdp() },
        Step { name: "fuzz targets", what: "each for some seconds, from its kept corpus", takes: "6 min", needs: &[], runs: &[Named], act: |test| fuzz::all(test.filter(), Effort::SOME) },
        Step { name: "fuzz targets, long", what: "each for a minute and a half, and sequences of packets for ten million steps", takes: "15 min", needs: &[], runs: &[Full], act: |test| fuzz::all(test.filter(), Effort::MUCH) },
        Step { name: "book", what: "the book's pages, and where their links lead", takes: "seconds", needs: &[Mdbook], runs: &[Full], act: |_| pages() },
        Step { name: "kernel matrix", what: "every program through the verifiers of the running kernel, 6.1 and 6.12", takes: "2 min, QEMU", needs: &[Emulator, Kernels, Modules], runs: &[Whole], act: |_| matrix(&Vm::default()) },
        Step { name: "kernels, frames", what: "the matrix, and the frames of the datapath's tests through each kernel's programs", takes: "10 min, QEMU", needs: &[Emulator, Kernels, Modules], runs: &[Full], act: |_| matrix(&Vm::with_frames()) },
        Step { name: "SCTP and VLANs", what: "pods, services, node ports and policy by SCTP, and VLAN devices that keep their tags, in a guest whose kernel has them", takes: "8 min, QEMU", needs: &[Emulator, Kernels, Modules], runs: &[Full], act: |_| matrix(&Vm::with_labs()) },
        Step { name: "arm64, tests", what: "walks of the datapath, units of the agent, the DNS server, and the CNI plugin as far as it makes no links, built for arm64 and run by QEMU", takes: "30 min, root, QEMU", needs: &[Arm64Compiler, Arm64Emulators], runs: &[Full], act: |_| arm64::tests() },
        Step { name: "arm64, kernels", what: "the matrix and the frames on kernels of arm64, with and without atomic instructions", takes: "40 min, QEMU", needs: &[Arm64Compiler, Arm64Emulators, Arm64Kernels], runs: &[Full], act: |_| matrix(&Vm::of_arm64()) },
        Step { name: "arm64, image", what: "the image for both architectures, and whether its programs start", takes: "10 min, QEMU", needs: &[Arm64Compiler, Arm64Emulators], runs: &[Full], act: |_| arm64::image() },
        Step { name: "cluster", what: "installation, upgrades, kills, reboots and mistakes on a real cluster under load", takes: "20 min, root, 4 GiB", needs: &[Cluster], runs: &[Run::Cluster, Whole, Full], act: |test| cluster::run(test.filter(), test.kubernetes()) },
        Step { name: "cluster, versions", what: "installing, kills, upgrades, and leaving for kube-proxy on clusters of each older Kubernetes in tests/cluster/versions", takes: "18 min, root, 4 GiB", needs: &[Cluster], runs: &[Full], act: |_| cluster::other_versions() },
        Step { name: "cluster, kubeadm", what: "installing, upgrades and a reboot on a cluster that kubeadm has made, with its control plane in pods", takes: "5 min, root, 6 GiB", needs: &[Cluster], runs: &[Full], act: |_| cluster::kubeadm() },
        Step { name: "soak", what: "every kind of load on a real cluster while endpoints, pods, policies and agents come and go, first with kube-proxy; `--soak --minutes N` for longer", takes: "25 min, root, 4 GiB", needs: &[Cluster], runs: &[Run::Soak, Full], act: |test| cluster::soak(test.soak_minutes()) },
        Step { name: "cluster, parts", what: "Services alone and NetworkPolicy alone on a real cluster, beside the reference bridge plugin, under load", takes: "5 min, root, 4 GiB", needs: &[Cluster], runs: &[Full], act: |_| cluster::parts() },
        Step { name: "upstream's specs", what: "what upstream asks of the network of every cluster: Conformance", takes: "15 min, root, 4 GiB", needs: &[Cluster, TestRoot], runs: &[Whole], act: |_| specs(&E2e::conformance()) },
        Step { name: "cluster policies", what: "upstream's conformance tests of ClusterNetworkPolicy, standard and experimental", takes: "15 min, root, 4 GiB", needs: &[Cluster, TestRoot], runs: &[Full], act: |_| cluster_policies() },
        Step { name: "cluster policies, SCTP", what: "those of them that send SCTP, on a cluster in a guest whose kernel has it", takes: "hours, root, QEMU, 8 GiB", needs: &[Cluster, TestRoot, Emulator, Kernels, Modules], runs: &[Full], act: |_| cluster_policies_in_guest() },
        Step { name: "upstream, all", what: "those, NetworkPolicy, dual stack, slow and serial ones, on six nodes", takes: "2 h, root, 8 GiB", needs: &[Cluster, TestRoot], runs: &[Full], act: |_| specs(&E2e::everything()) },
    ]
};

/// The steps of a run.
pub(super) fn of(run: Run) -> impl Iterator<Item = &'static Step> {
    STEPS.iter().filter(move |step| step.runs.contains(&run))
}

/// They are shown as a table.
pub(super) fn table(steps: &[&Step]) -> String {
    let width = |of: fn(&Step) -> &str| steps.iter().map(|step| of(step).len()).max().unwrap_or_default();
    let (name, takes) = (width(|step| step.name), width(|step| step.takes));
    let row = |step: &&Step| format!("{:<name$}  {:<takes$}  {}", step.name, step.takes, step.what);
    steps.iter().map(row).collect::<Vec<_>>().join("\n")
}

fn behaviour(test: &Test) -> Result<Outcome> {
    if test.filter().is_none() {
        // Behaviour tests start API servers where no network is: what Go has to fetch is fetched here.
        builder()?.build(CLUSTER)?;
    }
    host::behaviour(test.filter(), test.threads)
}

fn pages() -> Result<Outcome> {
    let failures: Vec<String> = book::build()?.iter().map(|link| format!("book: {link} leads nowhere")).collect();
    Ok(Outcome { tally: Tally::one(failures.is_empty()), failures })
}

/// The matrix has said what is wrong in its own words.
fn matrix(vm: &Vm) -> Result<Outcome> {
    let tally = vm.tally()?;
    let failures =
        (tally.failed > 0).then(|| "kernel matrix: see the verifiers' logs above, or `cargo xtask vm`".to_owned());
    Ok(Outcome { tally, failures: failures.into_iter().collect() })
}

fn specs(specs: &E2e) -> Result<Outcome> {
    let verdict = specs.verdict()?.context("they are not only listed")?;
    Ok(Outcome { tally: verdict.tally(), failures: verdict.wrong })
}

fn cluster_policies() -> Result<Outcome> {
    let verdict = E2e::cluster_policies()?;
    Ok(Outcome { tally: verdict.tally(), failures: verdict.wrong })
}

fn cluster_policies_in_guest() -> Result<Outcome> {
    let verdict = E2e::cluster_policies_in_guest()?;
    Ok(Outcome { tally: verdict.tally(), failures: verdict.wrong })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(run: Run) -> Vec<&'static str> {
        of(run).map(|step| step.name).collect()
    }

    #[test]
    fn a_full_run_has_all_that_a_whole_one_has() {
        let full = names(Run::Full);
        // What is there in a larger form.
        let larger = [
            ("fuzz targets", "fuzz targets, long"),
            ("kernel matrix", "kernels, frames"),
            ("upstream's specs", "upstream, all"),
        ];
        for name in names(Run::Whole) {
            let name = larger.iter().find(|(small, _)| *small == name).map_or(name, |(_, large)| *large);
            assert!(full.contains(&name), "{name} is missing in {full:?}");
        }
        assert_eq!(names(Run::Quick), ["unit tests", "behaviour tests"]);
        assert_eq!(names(Run::Named), ["unit tests", "behaviour tests", "fuzz targets"]);
        assert_eq!(names(Run::Cluster), ["cluster"]);
        assert_eq!(names(Run::Soak), ["soak"]);
    }

    #[test]
    fn steps_have_names_of_their_own_and_are_listed() {
        let all: Vec<&Step> = STEPS.iter().collect();
        let table = table(&all);
        for (index, step) in all.iter().enumerate() {
            assert!(!step.runs.is_empty(), "{} is in no run", step.name);
            let guests = step.needs.contains(&Kernels);
            assert_eq!(guests, step.needs.contains(&Modules), "{}: guests load modules", step.name);
            assert!(all[..index].iter().all(|other| other.name != step.name), "{} is there twice", step.name);
            let line = table.lines().nth(index).unwrap();
            assert!(line.starts_with(step.name) && line.contains(step.takes) && line.ends_with(step.what), "{line}");
        }
    }
}
