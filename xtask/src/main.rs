//! Every developer command of Fairlead: `cargo xtask help` lists them.
#![forbid(unsafe_code)]

mod arch;
mod bench;
mod book;
mod cluster;
mod demo;
mod deny;
mod e2e;
mod ebpf;
mod image;
mod lint;
mod manifests;
mod next;
mod paths;
mod pins;
mod remap;
mod run;
mod setup;
mod tally;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// Fairlead's developer commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    Setup(setup::Setup),
    Ebpf(ebpf::Ebpf),
    Lint(lint::Lint),
    Deny(deny::Deny),
    Test(test::Test),
    Vm(vm::Vm),
    Demo(demo::Demo),
    Bench(bench::Bench),
    Image(image::Image),
    Manifests(manifests::Manifests),
    Book(book::Book),
    Cluster(cluster::Cluster),
    E2e(e2e::E2e),
    Next(next::Next),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Setup(command) => command.run(),
        Command::Ebpf(command) => command.run(),
        Command::Lint(command) => command.run(),
        Command::Deny(command) => command.run(),
        Command::Test(command) => command.run(),
        Command::Vm(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Image(command) => command.run(),
        Command::Manifests(command) => command.run(),
        Command::Book(command) => command.run(),
        Command::Cluster(command) => command.run(),
        Command::E2e(command) => command.run(),
        Command::Next(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes; a backtrace of a developer's tool tells its user nothing.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
