//! `--kind`: where docker and kind are, they make the cluster, from the file that README gives to users. This has not been run
//! where Fairlead is developed: there is no docker there.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{paths, run};

/// Starts a kind cluster without a network of its own. It is kind's from then on: `kind delete cluster` ends it.
pub(super) fn up(name: &str) -> Result<()> {
    for program in ["docker", "kind"] {
        if paths::which(program).is_none() {
            bail!(
                "--kind needs {program}, which is not installed: without --kind, `cargo xtask cluster up` uses \
                 namespaces"
            );
        }
    }
    let config = paths::workspace().join("manifests/kind-config.yaml");
    run::run(Command::new("kind").args(["create", "cluster", "--name", name, "--config"]).arg(config))?;
    println!("inspect it with `kubectl --context kind-{name}`, remove it with `kind delete cluster --name {name}`");
    Ok(())
}
