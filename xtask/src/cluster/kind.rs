//! `--kind`: where docker and kind are, they make the cluster, from the file that README gives to users. This has not been run
//! where Fairlead is developed: there is no docker there.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{paths, run};

/// Starts a kind cluster without a network of its own. It is kind's from then on: `kind delete cluster` ends it.
pub(super) fn up(name: &str) -> Result<()> {
    for program in ["docker", "kind"] {
        if paths::which(program).is_none() {
            bail!("--kind needs {program}, which is not here: without it `cargo xtask cluster up` uses namespaces");
        }
    }
    let config = paths::workspace().join("manifests/kind-config.yaml");
    run::run(Command::new("kind").args(["create", "cluster", "--name", name, "--config"]).arg(config))?;
    println!("`kubectl --context kind-{name}` looks at it, `kind delete cluster --name {name}` ends it");
    Ok(())
}
