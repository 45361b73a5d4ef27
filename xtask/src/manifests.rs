//! `cargo xtask manifests`: the base as one file, for `kubectl apply -f`, and as the Helm chart's templates; and the pages of
//! the book that are made from code.
//!
//! The base's kustomization names files and transforms nothing, so the one file is these, comments included, in that
//! order: `kubectl kustomize` gives the same objects.

mod helm;
mod reference;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use fairlead_tree::kustomize::Kustomization;

use crate::paths;

const HEADER: &str = "\
# Fairlead in one file: kubectl apply -f install.yaml
# README.md beside it says what must be true before, and how to check and to remove it. `cargo xtask manifests` makes it
# from base/: change that.
";

/// Writes manifests/install.yaml, the Helm chart's templates and the book's page about JSON
#[derive(Args)]
pub(crate) struct Manifests {
    /// Change nothing; fail when a file is not what it is made of gives
    #[arg(long)]
    check: bool,
}

impl Manifests {
    pub(crate) fn run(&self) -> Result<()> {
        for (path, rendered) in made()? {
            let shown = path.strip_prefix(paths::workspace()).unwrap_or(&path).display();
            if fs::read_to_string(&path).unwrap_or_default() == rendered {
                println!("{shown} is up to date");
            } else if self.check {
                bail!("{shown} is out of date: run `cargo xtask manifests` and commit it");
            } else {
                fs::write(&path, rendered).with_context(|| format!("can't write {shown}"))?;
                println!("{shown} has changed: commit it");
            }
        }
        Ok(())
    }
}

/// Every file that is made of the base.
fn made() -> Result<Vec<(PathBuf, String)>> {
    let mut made = helm::templates()?;
    made.push((paths::workspace().join("manifests/install.yaml"), rendered()?));
    made.push(reference::page()?);
    Ok(made)
}

/// Fails when a file is not what the base gives.
pub(crate) fn check() -> Result<()> {
    Manifests { check: true }.run()
}

fn rendered() -> Result<String> {
    let base = paths::workspace().join("manifests/base");
    let read = |name: &str| fs::read_to_string(base.join(name)).with_context(|| format!("can't read base/{name}"));
    let kustomization = kustomization(&read("kustomization.yaml")?)?;
    let parts: Vec<String> = kustomization.resources.iter().map(|name| read(name)).collect::<Result<_>>()?;
    Ok(join(&parts))
}

/// A base that transforms anything would be something else than its files one after the other.
fn kustomization(text: &str) -> Result<Kustomization> {
    let only = "base/kustomization.yaml may name resources, nothing else";
    let found = Kustomization::read(text).context(only)?;
    ensure!(found.components.is_empty() && found.patches.is_empty(), only);
    Ok(found)
}

fn join(parts: &[String]) -> String {
    let mut text = HEADER.to_owned();
    for part in parts {
        text += "---\n";
        text += part;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_of_the_base_is_up_to_date() {
        check().unwrap();
    }

    #[test]
    fn a_base_that_transforms_is_refused() {
        let plain = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n";
        assert_eq!(kustomization(plain).unwrap().resources, ["a.yaml"]);
        let error = kustomization(&format!("{plain}namePrefix: x-\n")).err().unwrap();
        assert!(format!("{error:#}").contains("namePrefix"), "{error:#}");
        for changed in ["components: [x]", "patches: [{patch: x}]"] {
            let error = kustomization(&format!("{plain}{changed}\n")).unwrap_err();
            assert!(error.to_string().contains("nothing else"), "{error:#}");
        }
    }

    #[test]
    fn documents_are_kept_apart() {
        assert!(join(&["a: 1\n".to_owned(), "b: 2\n".to_owned()]).ends_with("---\na: 1\n---\nb: 2\n"));
    }
}
