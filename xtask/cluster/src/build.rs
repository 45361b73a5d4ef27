//! Builds the parts into a cache that all work trees share.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::parts::{Module, Part, version};
use crate::say::say;

/// What set-up downloads and builds: shared by all work trees, and may be deleted at any time.
pub fn cache() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("fairlead"));
    }
    let home =
        env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set: set one, the cache goes below it")?;
    Ok(PathBuf::from(home).join(".cache/fairlead"))
}

/// Where parts are pinned and where they go.
#[derive(Debug, Clone)]
pub struct Builder {
    /// The folder with a folder for each module: `tests/cluster`.
    pub modules: PathBuf,
    /// The folder below which there is one for each state of a module.
    pub cache: PathBuf,
    /// The Kubernetes that is built, of [`Self::versions`]; nothing for the one that everything runs on.
    pub kubernetes: Option<String>,
}

/// The folder of `tests/cluster` with a module for each other version of Kubernetes.
const VERSIONS: &str = "versions";

impl Builder {
    /// Of the modules in this folder, with the cache of this user.
    pub fn new(modules: PathBuf) -> Result<Self> {
        Ok(Self { modules, cache: cache()?.join("cluster"), kubernetes: None })
    }

    /// The same with another Kubernetes, by its minor version (`1.36`); nothing for the one that everything runs on.
    pub fn of(&self, kubernetes: Option<&str>) -> Self {
        Self { kubernetes: kubernetes.map(str::to_owned), ..self.clone() }
    }

    /// The other versions of Kubernetes that are pinned, the newest first.
    pub fn versions(&self) -> Result<Vec<String>> {
        let folder = self.modules.join(VERSIONS);
        let entries = fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
        let mut versions = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                versions.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        let minor = |version: &String| version.rsplit('.').next().and_then(|minor| minor.parse::<u32>().ok());
        versions.sort_by_key(|version| std::cmp::Reverse(minor(version)));
        Ok(versions)
    }

    /// The folder that pins a module.
    fn source(&self, module: Module) -> Result<PathBuf> {
        let Some(version) = self.kubernetes.as_ref().filter(|_| module == Module::Kubernetes) else {
            return Ok(self.modules.join(module.folder()));
        };
        let versions = self.versions()?;
        if !versions.contains(version) {
            bail!("Kubernetes {version} is not pinned: there are {}", versions.join(", "));
        }
        Ok(self.modules.join(VERSIONS).join(version))
    }

    /// A part's file, which need not be there.
    pub fn path(&self, part: &Part) -> Result<PathBuf> {
        Ok(self.folder(part.module)?.join(part.name))
    }

    /// The folder of a module's programs. Its name changes with whatever changes them.
    fn folder(&self, module: Module) -> Result<PathBuf> {
        let source = self.source(module)?;
        let read = |name: &str| {
            let file = source.join(name);
            fs::read(&file).with_context(|| format!("can't read {}", file.display()))
        };
        let go_mod = read("go.mod")?;
        let mut hash = Sha256::new();
        hash.update(&go_mod);
        hash.update(read("go.sum")?);
        hash.update(module.flags("").join(" "));
        let digest: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let version = version(&String::from_utf8_lossy(&go_mod), module.requirement()).unwrap_or_default();
        Ok(self.cache.join(format!("{}-{version}-{digest}", module.folder())))
    }

    /// Builds what is missing, one module after the other: each uses all cores.
    pub fn build(&self, parts: &[Part]) -> Result<()> {
        let mut missing: BTreeMap<Module, Vec<Part>> = BTreeMap::new();
        for part in parts {
            if !self.path(part)?.is_file() {
                missing.entry(part.module).or_default().push(*part);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let lock = self.cache.join("lock");
        fs::create_dir_all(&self.cache)?;
        let lock = File::create(&lock).with_context(|| format!("can't make {}", lock.display()))?;
        if lock.try_lock().is_err() {
            say("another process is building parts of the cluster: waiting for it");
            lock.lock()?;
        }
        for (module, mut parts) in missing {
            // Whoever had the lock may have built them.
            parts.retain(|part| self.path(part).is_ok_and(|path| !path.is_file()));
            if !parts.is_empty() {
                self.build_module(module, &parts)?;
            }
        }
        Ok(())
    }

    fn build_module(&self, module: Module, parts: &[Part]) -> Result<()> {
        let source = self.source(module)?;
        let go_mod = fs::read_to_string(source.join("go.mod"))?;
        let version = version(&go_mod, module.requirement()).context("go.mod names no version of its module")?;
        let names: Vec<&str> = parts.iter().map(|part| part.name).collect();
        say(format!(
            "building {} of {} {version}: seconds where Go has it in its cache, minutes where not",
            names.join(", "),
            module.requirement()
        ));
        let begin = Instant::now();
        let folder = self.folder(module)?;
        // Beside it: names of versions have dots, which are no extensions.
        let partial = self.cache.join(format!("{}.partial", module.folder()));
        fs::create_dir_all(&folder)?;
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        let (tests, programs): (Vec<&Part>, Vec<&Part>) = parts.iter().partition(|part| part.is_test());
        let flags = module.flags(&version);
        if let [one] = programs[..] {
            go(&source, &["build"], &flags, &partial.join(one.name), &[one.package])?;
        } else if !programs.is_empty() {
            // Each is named as the last part of its package. One call links them side by side.
            let packages: Vec<&str> = programs.iter().map(|part| part.package).collect();
            go(&source, &["build"], &flags, &partial, &packages)?;
        }
        for part in tests {
            // Not to examine the sources of two thousand packages, which `go test` does by default.
            go(&source, &["test", "-c", "-vet=off"], &flags, &partial.join(part.name), &[part.package])?;
        }
        for part in parts {
            fs::rename(partial.join(part.name), folder.join(part.name))
                .with_context(|| format!("{} was not built from {}", part.name, part.package))?;
        }
        fs::remove_dir_all(&partial)?;
        say(format!("built in {} s", begin.elapsed().as_secs()));
        Ok(())
    }
}

fn go(source: &Path, verb: &[&str], flags: &[String], output: &Path, packages: &[&str]) -> Result<()> {
    let mut command = Command::new("go");
    command.args(verb).args(flags).arg("-o");
    // A folder is one by its slash.
    if output.is_dir() {
        command.arg(format!("{}/", output.display()))
    } else {
        command.arg(output)
    };
    let status = command.args(packages).current_dir(source).env("CGO_ENABLED", "0").status().context(
        "can't start `go`: the cluster's parts are Go programs. Install Go 1.26 or newer and have it in PATH",
    )?;
    if !status.success() {
        bail!("go could not build {} in {}: {status}", packages.join(" "), source.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_version_pins_that_version() {
        let own = env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs tests");
        let modules = Path::new(&own).join("../../tests/cluster");
        let builder = Builder { modules, cache: "/cache".into(), kubernetes: None };
        let versions = builder.versions().unwrap();
        assert!(versions.is_sorted_by(|newer, older| newer > older), "{versions:?}");
        let folder = |kubernetes: Option<&str>| {
            let folder = builder.of(kubernetes).folder(Module::Kubernetes).unwrap();
            folder.file_name().unwrap().to_string_lossy().into_owned()
        };
        for version in &versions {
            let folder = folder(Some(version));
            assert!(folder.starts_with(&format!("kubernetes-v{version}.")), "{folder}");
        }
        assert!(!versions.iter().any(|version| folder(None).starts_with(&format!("kubernetes-v{version}."))));
        // What is not Kubernetes is the same with each.
        let etcd = |kubernetes| builder.of(kubernetes).folder(Module::Etcd).unwrap();
        assert_eq!(etcd(versions.first().map(String::as_str)), etcd(None));
        let error = builder.of(Some("1.2")).folder(Module::Kubernetes).unwrap_err().to_string();
        assert!(error.contains("1.2 is not pinned") && error.contains(&versions[0]), "{error}");
    }
}
