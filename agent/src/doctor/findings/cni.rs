//! What is wrong with the CNI configuration and its plugins.

use super::super::facts::{Cni, OlderPlugin};
use super::{Finding, blocks};
use crate::install::chain::refusal;

pub(super) fn cni(cni: &Cni) -> Vec<Finding> {
    let Cni { directory, own, files, lead_here, missing, refused, older, plugin, plugin_ok } = cni;
    let (directory, plugin) = (directory.display(), plugin.display());
    let mut found = Vec::new();
    // A runtime takes the first. One that leads here is as good as ours, and what comes behind it does not matter.
    let before = |name: &&String| *name < own && !lead_here.contains(name);
    let earlier: Vec<&str> = files.iter().take_while(before).map(String::as_str).collect();
    if !earlier.is_empty() {
        found.push(blocks(
            format!("another CNI configuration takes precedence in {directory}: {}", earlier.join(", ")),
            "the container runtime uses the first file by name, so pods are connected to that network",
            format!(
                "remove the other network plugin, then: rm {directory}/{}",
                earlier.join(&format!(" {directory}/"))
            ),
        ));
    }
    if files.contains(own) && !plugin_ok {
        found.push(blocks(
            format!("{plugin} is missing or not executable"),
            "the container runtime executes it for every pod",
            "run `fairlead install`; the file system must not be mounted noexec",
        ));
    }
    for kind in refused {
        found.push(blocks(
            format!("the plugin {kind} is in {own}"),
            "the plugins of the list are executed for every pod, and with this one pods don't start or can't connect",
            format!("remove its entry from {directory}/{own}: it {}", refusal(kind).unwrap_or_default()),
        ));
    }
    for OlderPlugin { kind, wanted, serves } in older {
        let lower = serves.map_or_else(String::new, |serves| {
            format!(
                "; or set `cniVersion` to {serves} in {directory}/{own} and remove `cniVersions`, which the agent keeps"
            )
        });
        found.push(blocks(
            format!("the plugin {kind} in {own} does not serve CNI {wanted}"),
            "runtimes call every plugin of the list with the highest version of it that they know: one that refuses it fails \
             every pod",
            format!("update it to a release that is built with libcni 1.2.0 or newer{lower}"),
        ));
    }
    if !missing.is_empty() {
        found.push(blocks(
            format!("plugins of {own} are missing or not executable: {}", missing.join(", ")),
            "the container runtime executes every plugin of the list for every pod, and no pod starts without one of them",
            format!(
                "install them next to {plugin}; or remove their entries from {directory}/{own} and from the setting \
                 `cni.chain`"
            ),
        ));
    }
    found
}
