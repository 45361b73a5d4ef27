//! Images for pods of tests. Upstream's come from registries that tests must not depend on, so they are made here: upstream's
//! own test program in a small root file system, under the names that upstream's tests ask for.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rcgen::generate_simple_self_signed;

use crate::archive::{self, Image};
use crate::cluster::Cluster;
use crate::parts::{CLUSTER, E2E, POLICY_TESTS, Part, TESTS};
use crate::pause;
use crate::registry;
use crate::say::say;
use crate::start::Host;

/// The image with the lab's program, which pods of our own tests run.
pub const LAB_IMAGE: &str = "localhost/fairlead-lab:test";

/// agnhost, upstream's test program with shell, curl, dig, nc and tcpdump beside it, for tests of our own.
pub const AGNHOST_IMAGE: &str = "localhost/fairlead-cluster-agnhost:1";

/// The root file system that setup makes, below the builder's cache.
pub const TEST_ROOT: &str = "test-root.tar";

/// Part of the names of what is made here and kept: to be raised when what is in it changes.
const RECIPE: &str = "3";
/// GNU's wget tries twenty times where that of BusyBox, which upstream's image has, tries once; specs wait for it to fail.
const WGETRC: &str = "tries = 1\n";

/// The version of agnhost in the manifests of the conformance tests of ClusterNetworkPolicy.
const POLICY_AGNHOST: &str = "2.45";
/// Stands before agnhost.
const WITHOUT_SCTP: &str = "#!/bin/sh
# A server of SCTP alone has nothing to do on a kernel without.
if [ \"$1\" = porter ] && ! [ -e /proc/net/sctp ]; then
    exec /agnhost.real pause
fi
exec /agnhost.real \"$@\"
";

impl Host {
    /// Brings [`AGNHOST_IMAGE`] to every node.
    pub fn load_agnhost(&self, cluster: &Cluster) -> Result<()> {
        self.builder.build(&parts(&["agnhost"]))?;
        cluster.load(&self.agnhost_archive()?)
    }

    fn agnhost_archive(&self) -> Result<PathBuf> {
        let target = self.file("agnhost", &format!("agnhost-{RECIPE}.tar"))?;
        if !target.is_file() {
            let layers = vec![self.root()?, self.agnhost_layer()?];
            archive::write(&target, &[image(vec![AGNHOST_IMAGE.to_owned()], layers, "/agnhost", "pause")])?;
        }
        Ok(target)
    }

    /// Brings what upstream's tests ask for to every node.
    pub fn load_test_images(&self, cluster: &Cluster) -> Result<()> {
        self.builder.build(E2E)?;
        let target = self.file(TESTS, &format!("images-{RECIPE}.tar"))?;
        if !target.is_file() {
            say("making the images of upstream's tests");
            archive::write(&target, &self.test_images()?)?;
        }
        cluster.load(&target)
    }

    /// Brings what upstream's conformance tests of ClusterNetworkPolicy ask for to every node: agnhost, which without SCTP in the
    /// kernel serves none, where upstream's ends and its pods never get ready.
    pub fn load_policy_test_images(&self, cluster: &Cluster) -> Result<()> {
        cluster.load(&self.policy_test_images()?)
    }

    /// Makes the archive of these, if it is not there.
    fn policy_test_images(&self) -> Result<PathBuf> {
        self.builder.build(POLICY_TESTS)?;
        let target = self.file("agnhost", &format!("policy-images-{RECIPE}.tar"))?;
        if !target.is_file() {
            let (program, layer) = (self.file("agnhost", "agnhost")?, self.file("agnhost", "agnhost.policy.tar")?);
            let script = self.file("agnhost", "agnhost.policy.sh")?;
            std::fs::write(&script, WITHOUT_SCTP)?;
            std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            archive::layer(&layer, &[("/agnhost.real", &program), ("/agnhost", &script)])?;
            let tags = named(&self.image_names()?, &["agnhost"]);
            let tag = tags.iter().find_map(|tag| tag.rsplit_once(':')).context("upstream's tests use agnhost")?.0;
            let tags = vec![format!("{tag}:{POLICY_AGNHOST}")];
            archive::write(&target, &[image(tags, vec![self.root()?, layer], "/agnhost", "pause")])?;
        }
        Ok(target)
    }

    /// Makes all of this that a cluster with those tests needs, for one that can't: in a guest.
    pub fn prepare_policy_tests(&self) -> Result<()> {
        self.builder.build(CLUSTER)?;
        pause::image(&self.builder.cache)?;
        self.policy_test_images().map(drop)
    }

    /// The names of the images that upstream's tests use.
    fn image_names(&self) -> Result<String> {
        let output = Command::new(self.builder.path(&part(TESTS)?)?).arg("--list-images").output()?;
        ensure!(output.status.success(), "e2e.test lists no images: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn test_images(&self) -> Result<Vec<Image>> {
        let names = self.image_names()?;
        let root = self.root()?;
        let layer = |part: &str| -> Result<PathBuf> {
            let (program, target) = (self.file(part, part)?, self.file(part, &format!("{part}.layer.tar"))?);
            archive::layer(&target, &[(&format!("/{part}"), &program)])?;
            Ok(target)
        };
        let pause = self.builder.cache.join("pause-layer.tar");
        archive::layer(&pause, &[("/pause", &pause::program(&self.builder.cache)?)])?;
        let registry = self.file(TESTS, "registry.layer.tar")?;
        archive::layer_of(&registry, &registry::files(&pause)?)?;
        let dns = layer("coredns")?;
        Ok(vec![
            image(named(&names, &["pause"]), vec![pause], "/pause", ""),
            image(
                named(&names, &["agnhost"]),
                vec![root.clone(), self.agnhost_layer()?, dns.clone(), registry],
                "/agnhost",
                "pause",
            ),
            image(named(&names, &["busybox"]), vec![root.clone()], "", "sh"),
            image(named(&names, &["glibc-dns-testing"]), vec![root, dns], "", "bash"),
            image(
                named(&names, &["regression-issue-74839"]),
                vec![layer("regression-issue-74839")?],
                "/regression-issue-74839",
                "",
            ),
        ])
    }

    /// The program, and what some of its servers read.
    fn agnhost_layer(&self) -> Result<PathBuf> {
        let program = self.file("agnhost", "agnhost")?;
        let target = self.file("agnhost", &format!("agnhost-{RECIPE}.layer.tar"))?;
        let pair = generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (self.file("agnhost", "localhost.crt")?, self.file("agnhost", "localhost.key")?);
        let wgetrc = self.file("agnhost", "wgetrc")?;
        if !target.is_file() {
            std::fs::write(&certificate, pair.cert.pem())?;
            std::fs::write(&key, pair.signing_key.serialize_pem())?;
            std::fs::write(&wgetrc, WGETRC)?;
            let files: [(&str, &Path); 4] = [
                ("/agnhost", &program),
                ("/localhost.crt", &certificate),
                ("/localhost.key", &key),
                ("/etc/wgetrc", &wgetrc),
            ];
            archive::layer(&target, &files)?;
        }
        Ok(target)
    }

    /// A file beside a part, so that it is made anew with it.
    fn file(&self, of: &str, name: &str) -> Result<PathBuf> {
        Ok(self.builder.path(&part(of)?)?.with_file_name(name))
    }

    fn root(&self) -> Result<PathBuf> {
        let root = self.builder.cache.join(TEST_ROOT);
        ensure!(
            root.is_file(),
            "the root file system of test images is missing: `cargo xtask setup --only test-root` makes it"
        );
        Ok(root)
    }
}

fn image(tags: Vec<String>, layers: Vec<PathBuf>, entrypoint: &str, command: &str) -> Image {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    Image { tags, layers, entrypoint: words(entrypoint), command: words(command) }
}

fn part(name: &str) -> Result<Part> {
    E2E.iter().find(|part| part.name == name).copied().with_context(|| format!("{name} is not a part of the tests"))
}

fn parts(names: &[&str]) -> Vec<Part> {
    E2E.iter().filter(|part| names.contains(&part.name)).copied().collect()
}

/// The images of a list, one a line, whose last word before the tag is one of these. Some are private on purpose: tests want
/// them not to be there.
fn named(list: &str, wanted: &[&str]) -> Vec<String> {
    let short = |line: &str| Some(line.rsplit_once('/')?.1.split_once(':')?.0.to_owned());
    let lines = list.lines().map(str::trim).filter(|line| !line.contains("authenticated"));
    lines.filter(|line| short(line).is_some_and(|name| wanted.contains(&name.as_str()))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_by_their_short_names() {
        let list = "r.example/e2e/agnhost:2.55\nr.example/e2e/agnhost:2.63.0\np.example/k8s-authenticated-test/agnhost:2.6\n\
                    r.example/e2e/agnhost-extra:1\nr.example/pause:3.10.2\n";
        assert_eq!(named(list, &["agnhost"]), ["r.example/e2e/agnhost:2.55", "r.example/e2e/agnhost:2.63.0"]);
        assert_eq!(named(list, &["pause"]), ["r.example/pause:3.10.2"]);
    }
}
